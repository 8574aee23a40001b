-- Purpose    Reads the records of batches, without their groups.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {number, or false for all batches that have data}
-- Returns    {number, fields of the batch's hash, number, fields, …}; batches that were never opened are left out

local args = unpack_row(ARGV[2])
local found = {}
for _, number in ipairs(args[1] and {args[1]} or call('ZRANGE', P .. ':batches', 0, -1)) do
  local key = P .. ':batch:' .. int(tonumber(number))
  local fields = call('HGETALL', key)
  if call('HEXISTS', key, 'spec') == 1 then
    found[#found + 1] = tonumber(number)
    found[#found + 1] = fields
  end
end
return found
