-- Purpose    Deletes the data of a job, scanning a part of the server's keys per call.
-- Guarantee  Every other verb is refused while a mark exists, so that one pass finds all keys. After an interruption
--            the caller begins the pass again; else the mark expires. The epoch stays, so no number is issued twice.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {cursor of the scan ("0" at first), number of keys to scan, seconds for which the mark stays, seconds for
--            which the epoch stays or false}
-- Returns    the next cursor, "0" at the end

local place, count, marked, remembered = unpack(unpack_row(ARGV[2]))
local mark = P .. ':purging'
call('DEL', mark)  -- a full server accepts all writes after the first
call('SET', mark, 1, 'EX', marked)
local found = call('SCAN', place, 'MATCH', P .. ':*', 'COUNT', count)
for _, key in ipairs(found[2]) do
  if key ~= STORE and key ~= mark then
    call('UNLINK', key)
  end
end
if found[1] == '0' then
  call('DEL', mark)
  if remembered then
    call('EXPIRE', STORE, remembered)
  end
end
return found[1]
