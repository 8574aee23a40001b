-- Purpose    Makes the caller the job's only driver.
-- Guarantee  The fence grows with every new driver; the same boot gets the same fence again. If the store has lost a
--            driver's fence, the driver keeps it, unless a newer driver has taken over.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {boot, the fence that the boot got before or 0}
-- Returns    the fence, or "0" for an old driver

local boot, held = unpack(unpack_row(ARGV[2]))
local row = call('HMGET', P .. ':driver', 'boot', 'fence')
local present = tonumber(row[2] or 0)
if row[1] == boot then
  return row[2]
end
if present > held and held > 0 then
  return '0'
end
local fence = int(held > 0 and held or issue_fence(present))
call('HSET', P .. ':driver', 'boot', boot, 'fence', fence)
return fence
