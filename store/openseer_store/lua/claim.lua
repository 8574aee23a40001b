-- Purpose    Takes back expired leases, then leases the waiting requests with the lowest scores that fit the worker.
-- Guarantee  A repeat of the worker's last claim that leased requests returns those of its leases that the worker still
--            holds. A request has one holder. Its fence only grows, also across a restart of the server.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {worker name, holder "name#boot", version, lanes, slots, blocks, KV groups, quantum, context_tokens,
--            margin, slack, lease_seconds, max_losses, number of the claim or 0, request limit, byte limit, head
--            window, versions of adapters, the worker's pace (0: unknown), FASTER}
-- Returns    {claims, specs}; a claim: {request, fence, tokens, base, slope, probe or "", view, version, number of
--            tokens at its end that were appended, not generated}; specs: group, spec, group, spec, … (a group once).

local query = unpack_row(ARGV[2])
local worker, holder, versions, lanes, slots, blocks = query[1], query[2], {query[3]}, query[4], query[5], query[6]
local kv_groups, quantum, context_tokens, margin = query[7], query[8], query[9], query[10]
local slack, lease_seconds = query[11], query[12]
local claims, specs, sent = {}, {}, {}
local most_requests, bytes_left, head_window = query[15], query[16], query[17]
for _, adapter in ipairs(query[18]) do
  versions[#versions + 1] = adapter
end

-- Core's KvLayout.blocks. A KV group: {block_tokens, count, fixed, most, most_computing}.
local function kv_blocks(tokens, computing)
  local blocks = 0
  for _, kv in ipairs(kv_groups) do
    local held = math.max(kv[4], math.min(math.ceil(computing / kv[1]), kv[5]))
    blocks = blocks + kv[2] * (kv[3] + math.min(math.ceil(tokens / kv[1]), held))
  end
  return blocks
end

-- Whether this worker has to end requests that fill its context: in its own lane, and if no larger worker claims.
local ends

local function blocks_needed(group, generated)
  if group.prompt_tokens + generated >= context_tokens then
    return ends and 0 or math.huge
  end
  local chunk = math.min(quantum, group.max_tokens - generated)
  local tokens = group.prompt_tokens + math.min(generated + chunk + margin, group.max_tokens)
  return kv_blocks(math.min(tokens, context_tokens), group.prompt_tokens + generated)
end

-- By group, its first waiting requests, read once per lane: enough for all requests that one claim may lease from it.
local windows = {}

local function window_of(group, lane, allowed)
  local window = windows[group.id]
  if not window then
    local row = call('ZRANGE', waiting_key(lane, group.id), 0, SIBLING_WINDOW + allowed, 'WITHSCORES')
    window = {taken = {}}
    for place = 1, #row, 2 do
      window[#window + 1] = {member = row[place], score = row[place + 1]}
    end
    windows[group.id] = window
  end
  return window
end

local function request_in(group, entry)
  if not entry.request then
    local index = tonumber(entry.member)
    entry.request = group.returned > 0 and load_request(group.id, index) or new_request(group.id, index)
  end
  return entry.request
end

-- The place in the window of the request to lease, and the blocks that it needs: the first request that fits, or one
-- that this worker has cached, if its score is at most a quantum higher.
local function pick(group, window)
  local first, first_blocks, last_score
  for place = 1, math.min(SIBLING_WINDOW, #window) do
    local request, score = request_in(group, window[place]), tonumber(window[place].score)
    local needed = blocks_needed(group, request.generated)
    if needed <= blocks then
      if not first then
        first, first_blocks, last_score = place, needed, score + quantum
      end
      if score > last_score then
        break
      end
      if request.holder == holder then
        return place, needed
      end
      if group.returned == 0 then
        break  -- no worker has run a request of this group that waits
      end
    end
  end
  return first, first_blocks
end

-- Removes a request from its window and from the counts. Returns whether the group's place in the lane has changed.
local function take(group, lane, window, place)
  local entry = table.remove(window, place)
  window.taken[#window.taken + 1] = entry.member
  bump(COUNTERS, 'waiting:' .. lane_name(group.version, lane), -1)
  if entry.request.leases > 0 then
    group.returned = group.returned - 1
    touch(group, lane)
  end
  local front = window[1]
  if not front then
    drop_head(group, lane)
    return true
  end
  local generated = request_in(group, front).generated
  local same_size = size_of(group.prompt_tokens + generated) == size_in(group, lane)
  if place > 1 or (front.score == entry.score and front.score ~= '-inf' and same_size) then
    return false
  end
  put_head(group, lane, front.score, generated)
  return true
end

local function hand_out(group, request)
  if not sent[group.id] then
    sent[group.id] = view_of(group)
    specs[#specs + 1] = group.id
    specs[#specs + 1] = call('GET', P .. ':spec:' .. group.id)
    bytes_left = bytes_left - group.prompt_tokens * ITEM_BYTES
  end
  local tokens = request.generated > 0 and call('GET', P .. ':tokens:' .. request.id) or ''
  bytes_left = bytes_left - #tokens
  local start, added = unpack(request.appended or {0, 0})
  claims[#claims + 1] = {request.id, int(request.fence), tokens, real(group.base), real(group.slope),
    group.probe and real(group.probe) or '', sent[group.id], group.version,
    request.generated == start + added and added or 0}
end

local function lease(group, request)
  request.state, request.leases, request.holder = 'leased', request.leases + 1, holder
  request.fence = issue_fence(request.fence)
  request.claimed_at, request.start = now, request.generated
  if is_suspect(request) then
    request.suspect = true
    bump(COUNTERS, 'suspects:' .. worker, 1)
  end
  save_request(request)
  deadlines[#deadlines + 1] = now + lease_seconds
  deadlines[#deadlines + 1] = request.id
  bump(COUNTERS, 'worker:' .. worker, 1)
  bump(COUNTERS, 'inflight', 1)
  note('claim', request)
  local page = page_of(batch_key(group.id))
  if page.started_at == 0 then
    write_on(page, 'started_at', now)
  end
  hand_out(group, request)
end

local function room_in(lane)
  local room = slots - #claims
  if lane ~= '' then
    return room
  end
  local load = fleet_load(worker, versions, {lane})
  local fair_share = math.max(1, math.ceil((load[4] + load[1]) / math.max(1, load[5])))
  local pace, faster, free_pace = query[19], query[20], tonumber(load[6])
  if load[1] <= fair_share and 0 < pace and pace * faster < free_pace then
    return 0
  elseif load[1] <= fair_share and 0 < free_pace and free_pace * faster < pace then
    return math.min(room, load[1])
  end
  return math.min(room, fair_share + slack - load[3])
end

-- Leases the requests with the lowest scores that fit, from several sorted sets of groups. Returns the remaining
-- allowance, and the number of groups without a request that fits.
local function claim_in(lane, keys, allowed)
  local places, fronts, misses = {}, {}, 0
  while allowed > 0 and #claims < most_requests and bytes_left > 0 do
    local best
    for _, key in ipairs(keys) do
      local place = places[key] or 0
      if fronts[key] == nil and place < head_window then
        local row = call('ZRANGE', key, place, place, 'WITHSCORES')
        fronts[key] = row[1] and {key = key, gid = row[1], score = tonumber(row[2])} or false
      end
      local front = fronts[key]
      if front and (not best or front.score < best.score or front.score == best.score and front.gid < best.gid) then
        best = front
      end
    end
    if not best then
      break
    end
    local group = group_of(best.gid)
    local window, chosen, needed
    if group.returned > 0 or blocks_needed(group, 0) <= blocks then
      window = window_of(group, lane, allowed)
      chosen, needed = pick(group, window)
    end
    if chosen then
      local request = window[chosen].request
      blocks, allowed = blocks - needed, allowed - 1
      if take(group, lane, window, chosen) then
        fronts[best.key], fronts[sized_key(group.version, lane, size_in(group, lane))] = nil, nil
      end
      lease(group, request)
    else
      places[best.key], fronts[best.key], misses = (places[best.key] or 0) + 1, nil, misses + 1
    end
  end
  return allowed, misses
end

-- Leases the first suspect that fits. Returns the number of leases, 0 or 1. A suspect is a request that lost at least
-- two leases to deaths of workers (at least one if max_losses is 0 or 1). A worker holds one suspect at a time, so that
-- a suspect that kills the worker causes no loss of another suspect.
local function claim_suspect(version, lane, allowed)
  if allowed <= 0 or #claims >= most_requests or bytes_left <= 0 then
    return 0
  end
  local waiting = call('ZRANGE', suspects_key(version, lane), 0, head_window - 1)
  if not waiting[1] or tonumber(call('HGET', COUNTERS, 'suspects:' .. worker) or 0) > 0 then
    return 0
  end
  for _, rid in ipairs(waiting) do
    local request = request_of(rid)
    local group = group_of(request.gid)
    local needed = blocks_needed(group, request.generated)
    if needed <= blocks then
      blocks = blocks - needed
      dequeue(group, request)
      lease(group, request)
      return 1
    end
  end
  return 0
end

local function claim_from(lane)
  windows = {}
  ends = lane ~= '' or context_tokens >= largest_limit()
  local room = room_in(lane)
  local heads, suspects = {}, 0
  for _, version in ipairs(versions) do
    suspects = suspects > 0 and suspects or claim_suspect(version, lane, room)
    heads[#heads + 1] = heads_key(version, lane)
  end
  local allowed, misses = claim_in(lane, heads, room - suspects)
  if misses >= head_window then
    local keys = {}
    for size = 0, LARGEST_SIZE do  -- core's sizes_to_claim
      local may_fit = size <= largest_below(context_tokens) and kv_blocks(2 ^ size, 2 ^ size) <= blocks
      if may_fit or ends and size >= size_of(context_tokens) then
        for _, version in ipairs(versions) do
          keys[#keys + 1] = sized_key(version, lane, size)
        end
      end
    end
    claim_in(lane, keys, allowed)
  end
  for gid, window in pairs(windows) do
    if window.taken[1] then
      call('ZREM', waiting_key(lane, gid), unpack(window.taken))
    end
  end
  flush()
end

tick(lease_seconds, query[13])
local number, remembered = query[14], P .. ':claimed:' .. worker

-- Whether this call repeats the worker's last claim, of which the reply was lost. If so, hands out its leases again.
local function is_repeat()
  local last = number > 0 and call('GET', remembered)
  last = last and unpack_row(last)
  if not last or last[1] ~= holder or last[2] ~= number then
    return false
  end
  for place = 3, #last, 2 do
    local request = request_of(last[place])
    local group = group_of(request.gid)
    if group and request.state == 'leased' and request.fence == last[place + 1] then
      hand_out(group, request)
    end
  end
  return true
end

local function remember()
  local row = {holder, number}
  for _, claim in ipairs(claims) do
    row[#row + 1] = claim[1]
    row[#row + 1] = tonumber(claim[2])
  end
  call('SET', remembered, pack(row))
end

if not is_repeat() then
  reap(query[13], false)
  count_in(worker, context_tokens)
  for _, lane in ipairs(lanes) do
    claim_from(lane)
  end
  if claims[1] then
    note_free(worker, 0)
  else
    call('HSET', IN_VAIN, worker, pack(versions))
  end
  if number > 0 and claims[1] then
    remember()
  end
end
return {claims, specs}
