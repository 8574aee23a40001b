-- Purpose    Notes that a batch has all its groups.
-- Guarantee  Only the present driver may, where one is named. A repeat changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, driver's fence or false}
-- Returns    1, or 0 for an old driver

local args = unpack_row(ARGV[2])
if not is_driver(args[2]) then
  return 0
end
call('HSET', P .. ':batch:' .. int(args[1]), 'sealed', 1)
return 1
