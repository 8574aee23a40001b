-- The ends of requests. Loaded after _clock.lua and before every verb. Each step does the same as the method of its
-- name in openseer_core/model/request_queue.py or accounting.py.

local STATES = {complete = 'done', abort = 'aborted', fail = 'failed', cancel = 'cancelled', carry = 'carried'}
local ENDINGS = {abort = {'aborted', 'aborted'}, cancel = {'aborted', 'cancelled'},
  carry = {'carried_over', 'carried_over'}, fail = {'infra_failed', 'infra_failed'}}
local EARLIER_SECONDS, EARLIER_TOKENS = 48 * 3600, 32768
local COUNTS = {ok = 'ok', aborted = 'aborted', infra_failed = 'failed', carried_over = 'carried'}

local function release(request, event, state)
  ended[#ended + 1] = request.id
  bump(COUNTERS, 'worker:' .. string.match(request.holder, '^[^#]*'), -1)
  bump(COUNTERS, 'inflight', -1)
  if request.suspect then
    bump(COUNTERS, 'suspects:' .. string.match(request.holder, '^[^#]*'), -1)
    request.suspect = nil
  end
  call('RPUSH', P .. ':chunks:' .. request.id, pack({request.holder, request.fence, request.start,
    request.generated, request.claimed_at, now, event, group_of(request.gid).version}))
  request.state = state
  save_request(request)
  note(event, request)
  flush_when_full()
end

local function end_lease(request, event)
  release(request, event, 'queued')
  enqueue(group_of(request.gid), request)
end

local function add_entry(key, kind, row)
  local page = page_of(key)
  write_on(page, 'entries', issue(page.entries))
  call('XADD', key .. ':results', int(page.entries) .. '-0', kind, pack(row))
end

-- Whether a batch is sealed and has as many groups as when it was sealed. Lost groups are submitted again.
local function is_sealed(key)
  local row, gathered = call('HMGET', key, 'sealed', 'expected', 'submitted'), bumps[key] or {}
  return row[1] and tonumber(row[3] or 0) + (gathered.submitted or 0) >= tonumber(row[2] or 0)
end

local function has_ended(group)
  return group.ok + group.aborted + group.failed + group.carried == group.size
end

-- Counts a request that has ended, and appends its result to the stream. After the last request of a group, also
-- appends the group's end.
local function report(request)
  local key, group = batch_key(request.gid), group_of(request.gid)
  local page, field = page_of(key), COUNTS[request.status]
  bump(key, request.status, 1)
  bump(key, 'closed_tokens', request.generated)
  bump(key, 'ok_tokens', request.status == 'ok' and request.generated or 0)
  page.closed = page.closed + 1
  add_entry(key, 'result', {request.id, request.status, request.reason, request.stop_reason, now, request.generated,
    call('LLEN', P .. ':chunks:' .. request.id), request.turn, group.version})
  write_on(page, 'ended_at', now)
  if request.status == 'ok' and request.generated > page.longest then
    write_on(page, 'longest', request.generated)
  end
  if page.tail_at == 0 and TAIL * page.closed >= (TAIL - 1) * page.requests then
    write_on(page, 'tail_at', now)
  end
  group[field] = group[field] + 1
  dirty[group.id] = dirty[group.id] or {}
  if has_ended(group) then
    add_entry(key, 'group', {group.id, now, group.size, group.ok, group.aborted, group.failed, group.carried})
    group.last_end = page.entries
    bump(key, 'groups_ended', 1)
    bump(key, 'groups_whole', group.ok == group.size and 1 or 0)
    bump(key, 'groups_carried', group.carried > 0 and 1 or 0)
  end
end

local function close(request, event, status, reason, stop_reason)
  request.status, request.reason, request.stop_reason = status, reason, stop_reason
  if request.state == 'leased' then
    release(request, event, STATES[event])
  else
    dequeue(group_of(request.gid), request)
    request.state = STATES[event]
    save_request(request)
    note(event, request)
  end
  report(request)
end

-- Ends unfinished requests of a group, from `first` to `last`, by an event other than their own completion.
-- `again`: only requests in their first turn.
local function end_requests(group, event, first, last, again)
  local count = 0
  for index = first, math.min(last, group.size - 1) do
    local request = load_request(group.id, index)
    if (request.state == 'queued' or request.state == 'leased') and not (again and request.turn > 0) then
      close(request, event, ENDINGS[event][1], ENDINGS[event][2], '')
      count = count + 1
    end
  end
  return count
end

local function end_group(group, event)
  return end_requests(group, event, 0, group.size - 1)
end

-- The version that sampled a request's first tokens; "" if it has no tokens.
local function oldest_version(group, index)
  local place, chunks = 0, P .. ':chunks:' .. group.id .. '/' .. index
  local data = call('LINDEX', chunks, place)
  while data do
    local chunk = unpack_row(data)
    if chunk[4] > chunk[3] then
      return chunk[8]
    end
    place = place + 1
    data = call('LINDEX', chunks, place)
  end
  local request = load_request(group.id, index)
  return request.state == 'leased' and request.generated > request.start and group.version or ''
end

local function is_stale(group, versions)
  local stale = {}
  for _, version in ipairs(versions) do
    stale[version] = true
  end
  for index = 0, versions[1] and group.size - 1 or -1 do
    if stale[oldest_version(group, index)] then
      return true
    end
  end
  return false
end

-- Deletes at most `most` requests of a group from number `first` on. Returns the number of the first request left.
local function erase_requests(group, first, most)
  local doomed, last = {}, math.min(first + most, group.size) - 1
  for index = first, last do
    for _, kind in ipairs({':request:', ':tokens:', ':logprobs:', ':chunks:'}) do
      doomed[#doomed + 1] = P .. kind .. group.id .. '/' .. index
    end
  end
  for place = 1, #doomed, 1000 do
    call('UNLINK', unpack(doomed, place, math.min(place + 999, #doomed)))
  end
  return last + 1
end

-- Deletes a group that has no waiting or running requests. Call flush() before and after.
local function erase(group)
  bump(batch_key(group.id), 'open_known', -group.open_known)
  bump(batch_key(group.id), 'open_expected', -group.open_expected)
  erase_requests(group, 0, group.size)
  call('UNLINK', P .. ':group:' .. group.id, P .. ':spec:' .. group.id)
  groups[group.id] = false
end

-- ---- core's EarlierResponses

local function earlier_keys(group)
  return P .. ':earlier:' .. group.history, P .. ':earlier_lengths:' .. group.history
end

local function cut(request)
  return call('GETRANGE', P .. ':tokens:' .. request.id, 0, EARLIER_TOKENS * ITEM_BYTES - 1)
end

local function keep(group, request)
  local responses, lengths = earlier_keys(group)
  call('LPUSH', responses, cut(request))
  call('LPUSH', lengths, int(request.generated))
  for _, key in ipairs({responses, lengths}) do
    call('LTRIM', key, 0, group.history_size - 1)
    call('EXPIRE', key, EARLIER_SECONDS)
  end
end

local function take_back(group, request)
  local responses, lengths = earlier_keys(group)
  if call('LREM', responses, 1, cut(request)) == 1 then
    call('LREM', lengths, 1, int(request.generated))
  end
end

-- ---- leases that end without a write of their holder: core's LossQueue

local function name_of(holder)
  return string.match(holder, '^[^#]*')
end

local function reclaim(request, limit)
  if request.losses > limit or request.expiries > EXPIRY_LIMIT then
    close(request, 'fail', ENDINGS.fail[1], ENDINGS.fail[2], '')
  else
    end_lease(request, 'reap')
  end
end

local function lose(request, limit, died)
  request.expiries = request.expiries + 1
  request.losses = request.losses + (died and 1 or 0)
  reclaim(request, limit)
end

-- Reduces the losses by one if the ended lease has generated tokens.
local function absolve(request)
  if request.generated > request.start then
    request.losses = math.max(0, request.losses - 1)
  end
end

local boots = {}

-- Whether a later boot of the holder's name has sent a heartbeat, which is evidence that the holder died.
local function has_died(holder)
  local name = name_of(holder)
  if boots[name] == nil then
    boots[name] = call('HGET', P .. ':worker:' .. name, 'boot')
  end
  return boots[name] and name .. '#' .. boots[name] ~= holder
end

-- Handles the death of the boots of a name before `boot`: their leases expire at once, and their leases that expired
-- before count as losses.
local function bury(name, boot)
  local held = tonumber(call('HGET', COUNTERS, 'worker:' .. name) or 0)
  local oldest = held > 0 and call('ZRANGE', DEADLINES, 0, held + REAP_LIMIT - 1) or {}
  for _, rid in ipairs(oldest) do
    local holder = request_of(rid).holder
    if name_of(holder) == name and holder ~= name .. '#' .. boot then
      call('ZADD', DEADLINES, EXPIRED, rid)
    end
  end
  local lost = call('SMEMBERS', P .. ':lost:' .. name)
  table.sort(lost)
  for _, rid in ipairs(lost) do
    local request = request_of(rid)
    local waits = request.state == 'queued'
    if group_of(request.gid) and (waits or request.state == 'leased') then
      if waits then
        dequeue(group_of(request.gid), request)
      end
      request.losses = request.losses + 1
      if waits then
        enqueue(group_of(request.gid), request)  -- among the suspects, if it has become one
      end
      if waits and request.losses > max_losses then
        close(request, 'fail', ENDINGS.fail[1], ENDINGS.fail[2], '')
      else
        save_request(request)
      end
    end
  end
  call('DEL', P .. ':lost:' .. name)
  flush()
end

local function reap(limit, everything)
  local grace = now < grace_until
  local last = everything and '+inf' or grace and EXPIRED or real(now)
  local expired = call('ZRANGEBYSCORE', DEADLINES, '-inf', last, 'LIMIT', 0, REAP_LIMIT)
  for _, rid in ipairs(expired) do
    local request = request_of(rid)
    if everything then
      reclaim(request, limit)
    elseif has_died(request.holder) then
      lose(request, limit, true)
    else
      local name = name_of(request.holder)
      count_out(name)  -- the worker did not renew the lease
      call('SADD', P .. ':lost:' .. name, rid)
      call('EXPIRE', P .. ':lost:' .. name, LOST_SECONDS)
      lose(request, limit, false)
    end
  end
  if not grace then
    for _, name in ipairs(call('ZRANGEBYSCORE', CLAIMING, '-inf', '(' .. real(now - WORKER_TTL_SECONDS))) do
      count_out(name)
    end
  end
  flush()
  return #expired
end

-- ---- the verb
