-- Purpose    Removes a worker and its drain request.
-- Guarantee  Changes nothing if another boot has the worker's name.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {worker name, boot}
-- Returns    1 if the worker was removed, 0 if another boot has the name

local args = unpack_row(ARGV[2])
local boot = call('HGET', P .. ':worker:' .. args[1], 'boot')
if boot and boot ~= args[2] then
  return 0
end
call('SREM', P .. ':workers', args[1])
call('DEL', P .. ':worker:' .. args[1], P .. ':lost:' .. args[1], P .. ':claimed:' .. args[1])
call('SREM', P .. ':drains', args[1])
count_out(args[1])
return 1
