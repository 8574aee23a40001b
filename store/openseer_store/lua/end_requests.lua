-- Purpose    Ends unfinished requests of some groups for a reason that is not their own response's.
-- Guarantee  Partial tokens are kept; each request gets one result. Bounded by the groups that the caller names.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {event, groups, index or false: only those requests, revision that this follows from or false}
-- Returns    how many were ended; -1, and nothing was, when the fleet spec has another revision

tick()
local args = unpack_row(ARGV[2])
if is_late(args[4]) then
  return -1
end
local count = 0
for _, gid in ipairs(args[2]) do
  count = count + end_group(gid, args[1], args[3])
end
flush()
return count
