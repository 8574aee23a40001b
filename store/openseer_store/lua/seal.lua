-- Purpose    Closes a batch for new groups.
-- Guarantee  With a driver's fence, only for the present driver. A repeat changes nothing. If the store has lost the
--            seal, or groups from before the seal, the caller repeats it with the number of groups. Until the batch has
--            that number again, it accepts groups and is not complete.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, driver's fence or false, number of groups when the batch was sealed, or false}
-- Returns    the number of groups when the batch was sealed; -1 for an old driver

local args = unpack_row(ARGV[2])
if not is_driver(args[2]) then
  return -1
end
local key = P .. ':batch:' .. int(args[1])
local known = call('HMGET', key, 'sealed', 'expected', 'submitted')
local expected = tonumber(known[2] or 0)
if args[3] or not known[1] then
  expected = math.max(expected, tonumber(args[3] or known[3] or 0))
  call('HSET', key, 'sealed', 1, 'expected', int(expected))
end
return expected
