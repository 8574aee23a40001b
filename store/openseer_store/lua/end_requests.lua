-- Purpose    Ends unfinished requests of some groups by an event other than completion: abort, cancel, carry or fail.
-- Guarantee  Partial tokens are kept; each request gets one result. Stops at the request limit; the caller continues. A
--            repeat after a loss ends only requests in their first turn: a later turn may have begun since.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {event, groups, index of the only request to end or false, first index of the first group, request limit,
--            revision that the call depends on or false, whether this is a repeat after a loss}
-- Returns    {number of ended requests, number of handled groups, first index of the next group}; {-1}, without a
--            change, if the fleet spec has another revision

tick()
local args = unpack_row(ARGV[2])
if is_late(args[6]) then
  return {-1}
end
local event, gids, only, first, left = args[1], args[2], args[3], args[4], args[5]
local count = 0
for number, gid in ipairs(gids) do
  local group = group_of(gid)
  if group and only then
    count = count + end_requests(group, event, only, only, args[7])
    left = left - 1
  elseif group then
    count = count + end_requests(group, event, first, first + left - 1, args[7])
    if first + left < group.size then
      flush()
      return {count, number - 1, first + left}
    end
    left = left - (group.size - first)
  end
  first = 0
  if left <= 0 then
    flush()
    return {count, number, 0}
  end
end
flush()
return {count, #gids, 0}
