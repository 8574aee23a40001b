-- Purpose    Remembers that all results up to a number are safe.
-- Guarantee  Only the present driver may; the number never goes back.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {driver's fence, number of the result}
-- Returns    1, or 0 for an old driver

local args = unpack_row(ARGV[2])
local row = call('HMGET', P .. ':driver', 'fence', 'acknowledged')
if tonumber(row[1] or 0) ~= args[1] then
  return 0
end
if args[2] > tonumber(row[2] or 0) then
  call('HSET', P .. ':driver', 'acknowledged', int(args[2]))
end
return 1
