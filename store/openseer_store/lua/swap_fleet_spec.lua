-- Purpose    Replaces the fleet spec.
-- Guarantee  Only by the next revision, so that of two writers one learns that it was late.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {revision of the new fleet spec}
-- ARGV[3]    the fleet spec (JSON)
-- Returns    1, or 0 when another revision is there

local revision = unpack_row(ARGV[2])[1]
if tonumber(call('HGET', P .. ':orders', 'revision') or 0) ~= revision - 1 then
  return 0
end
call('HSET', P .. ':orders', 'revision', int(revision), 'orders', ARGV[3])
return 1
