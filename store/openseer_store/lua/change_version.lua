-- Purpose    Gives unfinished requests of some groups another version.
-- Guarantee  Leases end first, so no token is stored with a version that did not sample it. A repeat changes nothing.
--            Stops after the group that reaches the request limit; the caller continues. The batch gets the new version
--            after its last group. Until then the batch has the old version, so after an interruption the caller starts
--            again.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, first group, last group (numbers, both included), version, stale versions, request limit, revision
--            that the call depends on or false}
-- Returns    {number of handled groups, 1 if no group is left, else 0}; {-1}, without a change, if the fleet spec has
--            another revision

tick()
local args = unpack_row(ARGV[2])
if is_late(args[7]) then
  return {-1}
end
local key, version = P .. ':batch:' .. int(args[1]), args[4]

local function switch(group)
  local open = {}
  for index = 0, group.size - 1 do
    local request = load_request(group.id, index)
    if request.state == 'leased' then
      end_lease(request, 'reap')
    end
    if request.state == 'queued' then
      open[#open + 1] = request
    end
  end
  for _, request in ipairs(open) do
    dequeue(group, request)
  end
  flush()
  group.version = version
  for _, request in ipairs(open) do
    enqueue(group, request)
    if request.leases == 0 then
      group.returned = group.returned - 1
    end
  end
  touch(group)
  flush()
end

local gids, seen, left = call('LRANGE', key .. ':groups', args[2], args[3]), 0, args[6]
for _, gid in ipairs(gids) do
  local group = group_of(gid)
  if group and not has_ended(group) and group.version ~= version then
    if is_stale(group, args[5]) then
      end_group(group, 'abort')
    else
      switch(group)
    end
    left = left - group.size
  end
  seen = seen + 1
  if left <= 0 then
    break
  end
end
local last = seen == #gids and #gids <= args[3] - args[2]
if last then
  call('HSET', key, 'version', version)
end
flush()
return {seen, last and 1 or 0}
