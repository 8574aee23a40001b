-- Purpose    Makes the caller the job's only driver.
-- Guarantee  The fence grows with every new driver; the same boot gets the same one again.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {boot}
-- Returns    the fence

local boot = unpack_row(ARGV[2])[1]
local row = call('HMGET', P .. ':driver', 'boot', 'fence')
if row[1] == boot then
  return row[2]
end
local fence = int(issue(tonumber(row[2] or 0)))
call('HSET', P .. ':driver', 'boot', boot, 'fence', fence)
return fence
