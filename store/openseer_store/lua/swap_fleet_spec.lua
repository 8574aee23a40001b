-- Purpose    Replaces the fleet spec.
-- Guarantee  The new revision must follow the present one, so that one of two writers gets 0. A repeat changes nothing.
--            A fleet spec that the store has lost is written again with a new revision, unless a later one exists.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {revision of the new fleet spec, whether this is a repeat after a loss}
-- ARGV[3]    the fleet spec (JSON)
-- Returns    1, or 0 if another writer was first

local revision, again = unpack(unpack_row(ARGV[2]))
local row = call('HMGET', P .. ':orders', 'revision', 'orders', 'written')
local present = tonumber(row[1] or 0)
local written = tonumber(row[3] or present)
if row[2] == ARGV[3] and written == revision then
  return 1
end
local follows = issue(present)
if again and revision <= written or not again and revision ~= follows then
  return 0
end
call('HSET', P .. ':orders', 'revision', int(follows), 'written', int(revision), 'orders', ARGV[3])
return 1
