-- Purpose    Remembers that all entries of a batch's results stream up to a number are safe.
-- Guarantee  Only the present driver may, where one is named; the number never goes back.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, number of the entry, driver's fence or false}
-- Returns    1, or 0 for an old driver

local args = unpack_row(ARGV[2])
if not is_driver(args[3]) then
  return 0
end
local key = P .. ':batch:' .. int(args[1])
if args[2] > tonumber(call('HGET', key, 'acknowledged') or 0) then
  call('HSET', key, 'acknowledged', int(args[2]))
end
return 1
