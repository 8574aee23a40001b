-- Purpose    Adds requests to a group.
-- Guarantee  A repeat changes nothing. The batch has a single writer, so no other writer's requests are overwritten.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group, its number of requests, its new number}
-- ARGV[3]    the group's new spec
-- Returns    1 if the group has grown, else 0

local args = unpack_row(ARGV[2])
local group = group_of(args[1])
if not group or group.size ~= args[2] then
  return 0
end
call('SET', P .. ':spec:' .. group.id, ARGV[3])
group.size, group.revision = args[3], group.revision + 1
add_requests(batch_key(group.id), args[3] - args[2])
for index = args[2], args[3] - 1 do
  enqueue(group, load_request(group.id, index))
  group.returned = group.returned - 1  -- enqueue() has counted it as returned by a worker
end
flush()
return 1
