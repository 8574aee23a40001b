-- Purpose    Deletes what is kept of a job, a piece of the server's keys at a time.
-- Guarantee  Meanwhile every other verb is refused, so that one pass finds all there is. A pass that was cut short is begun
--            again; without it the mark goes after a while. The epoch stays: no number is issued twice.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {place of the scan, "0" at first, keys to look at, seconds that the mark stays, seconds that the epoch stays
--            or false}
-- Returns    where to go on, "0" at the end

local place, count, marked, remembered = unpack(unpack_row(ARGV[2]))
local mark = P .. ':purging'
call('DEL', mark)  -- after a first write a full server lets the rest pass
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
