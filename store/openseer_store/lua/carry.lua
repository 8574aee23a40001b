-- Purpose    Moves groups to another batch with all their tokens.
-- Guarantee  A group that exists in the target batch already is not changed; its name there contains its origin. In
--            the source batch unfinished requests end as carried over. In the target batch finished requests are
--            reported at once, also in the journal, and the others are queued. Batch -1 only stores groups.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {groups, target batch, version, stale versions, request limit, byte limit, whether these are the last
--            groups}
-- Returns    {number of moved groups, number of handled groups}; the caller continues with the others. The tokens of a
--            large group are copied in advance, over several calls; the last call copies the rest and moves the group.

tick()
local args = unpack_row(ARGV[2])
local batch, version, stale, moved = int(args[2]), args[3], args[4], 0
local requests_left, bytes_left = args[5], args[6]

-- Copies the part of a string that the target lacks.
local function copy(kind, from, to)
  local source, target = P .. kind .. from, P .. kind .. to
  local known, size = call('STRLEN', target), call('STRLEN', source)
  if size > known then
    bytes_left = bytes_left - (size - known)
    if known == 0 then
      call('COPY', source, target)
    else
      call('APPEND', target, call('GETRANGE', source, known, -1))
    end
  end
end

-- Copies tokens and log-probabilities of a group. Returns false if the byte limit does not suffice.
local function copied(group, gid)
  for index = 0, group.size - 1 do
    for _, kind in ipairs({':tokens:', ':logprobs:'}) do
      copy(kind, group.id .. '/' .. index, gid .. '/' .. index)
      if bytes_left <= 0 and index < group.size - 1 then
        return false
      end
    end
  end
  return true
end

local function copy_request(group, target, index)
  local request = load_request(group.id, index)
  local old, done = request.id, request.state == 'done'
  request.id, request.gid = target.id .. '/' .. index, target.id
  request.leases, request.losses, request.expiries = 1, 0, 0  -- 1: it has a record
  request.state = done and 'done' or 'queued'
  request.status = done and 'ok' or false
  request.reason = done and request.reason or ''
  copy(':tokens:', old, request.id)
  copy(':logprobs:', old, request.id)
  call('COPY', P .. ':chunks:' .. old, P .. ':chunks:' .. request.id, 'REPLACE')
  save_request(request)
  bump(batch_key(target.id), 'tokens', request.generated)
  bump(batch_key(target.id), 'carried_tokens', request.generated)
  if batch ~= PARKED then
    if done then
      note('complete', request)
      report(request)
    else
      enqueue(target, request)
    end
  end
end

local function move(group, gid)
  if batch_of(group.id) ~= PARKED then
    end_group(group, 'carry')
  end
  local spec = call('GET', P .. ':spec:' .. group.id)
  call('SET', P .. ':spec:' .. gid, spec)
  local target = {}
  for name, value in pairs(group) do
    target[name] = value
  end
  target.id, target.version, target.revision, target.returned = gid, version, 0, 0
  target.ok, target.aborted, target.failed, target.carried = 0, 0, 0, 0
  target.last_end = false
  target.open_known, target.open_expected = 0, 0
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

-- Moves one group, if it has to move. Returns false if the move needs another call.
local function settle(from)
  local gid, group = carried(from), group_of(from)
  local parked = batch_of(from) == PARKED
  if not group or group_of(gid) or (not parked and has_ended(group)) then
    return true
  end
  if is_stale(group, stale) then
    if not parked then
      end_group(group, 'abort')
    end
    bump(batch_key(gid), 'groups_stale', 1)
  elseif copied(group, gid) then
    move(group, gid)
  else
    return false
  end
  requests_left = requests_left - group.size
  if parked then
    flush()
    erase(group)
    call('LREM', batch_key(from) .. ':groups', 1, from)
  end
  return true
end

local gone = call('HGET', P .. ':batch:' .. int(batch), 'forgotten')
local done = gone and #args[1] or 0
for _, from in ipairs(gone and {} or args[1]) do
  if requests_left <= 0 or bytes_left <= 0 or not settle(from) then
    break
  end
  done = done + 1
end
if args[7] and done == #args[1] then
  call('HDEL', P .. ':batch:' .. int(batch), 'takes_parked')
end
flush()
return {moved, done}
