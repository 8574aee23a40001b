-- Purpose    Asks a worker to drain.
-- Guarantee  A repeat changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {worker name, revision that the call depends on or false}
-- Returns    {1}; {-1}, without a change, if the fleet spec has another revision

local args = unpack_row(ARGV[2])
if is_late(args[2]) then
  return {-1}
end
call('SADD', P .. ':drains', args[1])
return {1}
