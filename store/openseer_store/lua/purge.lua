-- Purpose    Deletes the data of a job, scanning a part of the server's keys per call.
-- Guarantee  Meanwhile every other verb is refused, so that one pass finds all keys. An interrupted pass is started
--            again; without that, the mark expires. The epoch stays: no number is issued twice.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {cursor of the scan, "0" at first, number of keys to scan, seconds that the mark stays, seconds that the
--            epoch stays or false}
-- Returns    the next cursor, "0" at the end

local place, count, marked, remembered = unpack(unpack_row(ARGV[2]))
local mark = P .. ':purging'
call('DEL', mark)  -- after a first write a full server accepts the rest
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
