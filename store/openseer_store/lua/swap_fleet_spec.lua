-- Purpose    Replaces the fleet spec.
-- Guarantee  Only by the next revision, so that of two writers one learns that it was late. A repeat changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {revision of the new fleet spec}
-- ARGV[3]    the fleet spec (JSON)
-- Returns    1, or 0 when another revision is there

local revision = unpack_row(ARGV[2])[1]
local row = call('HMGET', P .. ':orders', 'revision', 'orders')
local present = tonumber(row[1] or 0)
if present == revision and row[2] == ARGV[3] then
  return 1
end
if issue(present) ~= revision then
  return 0
end
call('HSET', P .. ':orders', 'revision', int(revision), 'orders', ARGV[3])
return 1
