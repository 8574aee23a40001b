-- Purpose    Moves groups to another batch with all their tokens.
-- Guarantee  A group that is there already is left as it is; its name there says where it is from. Here what is unfinished ends as carried over; there what
--            is finished is reported at once and the rest waits, or (in the batch -1) is kept.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {groups, batch, version, stale versions}
-- Returns    how many moved

tick()
local args = unpack_row(ARGV[2])
local batch, version, stale, moved = int(args[2]), args[3], args[4], 0

local function copy(kind, from, to)
  call('COPY', P .. kind .. from, P .. kind .. to)
end

local function copy_request(group, target, index)
  local request = load_request(group.id, index)
  local old, done = request.id, request.state == 'done'
  request.id, request.gid = target.id .. '/' .. index, target.id
  request.leases, request.losses, request.expiries, request.fence = 1, 0, 0, 0  -- 1: there is a record of it
  request.state = done and 'done' or 'queued'
  request.status = done and 'ok' or false
  request.reason = done and request.reason or ''
  copy(':tokens:', old, request.id)
  copy(':logprobs:', old, request.id)
  copy(':chunks:', old, request.id)
  save_request(request)
  bump(batch_key(target.id), 'tokens', request.generated)
  if batch ~= PARKED then
    if done then
      report(request)
    else
      enqueue(target, request)
    end
  end
end

local function move(group, gid)
  if batch_of(group.id) ~= PARKED then
    end_group(group.id, 'carry')
  end
  local spec = call('GET', P .. ':spec:' .. group.id)
  call('SET', P .. ':spec:' .. gid, spec)
  local target = {}
  for name, value in pairs(group) do
    target[name] = value
  end
  target.id, target.version, target.revision, target.returned = gid, version, 0, 0
  target.ok, target.aborted, target.failed, target.carried = 0, 0, 0, 0
  groups[gid] = target
  local key = batch_key(gid)
  bump(key, 'groups', 1)
  add_requests(key, group.size)
  call('RPUSH', key .. ':groups', gid)
  touch(target)
  for index = 0, group.size - 1 do
    copy_request(group, target, index)
  end
  moved = moved + 1
end

-- core's GroupId.carried
local function carried(from)
  local origin, name = string.match(from, '^([^/]*)/(.*)$')
  local named = origin == PARKED or string.find(name, '~', 1, true)
  return batch .. '/' .. (named and name or name .. '~' .. origin)
end

for _, from in ipairs(args[1]) do
  local gid = carried(from)
  local group = group_of(from)
  local ended = group and group.ok + group.aborted + group.failed + group.carried == group.size
  if group and not group_of(gid) and (batch_of(from) == PARKED or not ended) then
    if is_stale(group, stale) then
      if batch_of(from) ~= PARKED then
        end_group(from, 'abort')
      end
      bump(batch_key(gid), 'groups_stale', 1)
    else
      move(group, gid)
    end
    if batch_of(from) == PARKED then
      flush()
      erase(group)
      call('LREM', batch_key(from) .. ':groups', 1, from)
    end
  end
end
flush()
return moved
