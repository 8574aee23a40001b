-- The inner steps of the queue, loaded before every verb. A step does the same as the method of its name in
-- openseer_core/model/request_queue.py. keys.py describes the keys.
-- KEYS[1]  the job's prefix "{openseer:<namespace>/<job>}"; all other keys start with it and are on the same slot.
-- ARGV[1]  seconds of the wall clock, or "" for the server's own.
-- ARGV[2]  the verb's arguments, msgpack. Binary arguments follow from ARGV[3] on.
-- A call from Lua costs more than the Redis command itself. So each group and each request is one packed string, and
-- flush() writes the collected changes of a verb (counters, deadlines, places of groups, fields of batches).

local P, call, pack, unpack_row = KEYS[1], redis.call, cmsgpack.pack, cmsgpack.unpack
local SIBLING_WINDOW, CALLS, LARGEST_SIZE = 4, 2, 24
local EXPIRY_LIMIT, LOST_SECONDS, EXPIRED, SUSPECT_LOSSES = 16, 24 * 3600, 0, 2
local REAP_LIMIT, WORKER_TTL_SECONDS, ITEM_BYTES, TAIL, PARKED = 64, 10, 4, 10, '-1'
local NUMBERS_PER_MILLISECOND, EPOCHS_BEGIN, SETBACK = 4096, 1735689600, 1048576
local STORE, COUNTERS, DEADLINES = P .. ':store', P .. ':counters', P .. ':deadlines'
local now, grace_until, max_losses  -- set by the clock: _clock.lua

-- The exact text of a number: int() for whole numbers, real() for others.
local function int(number)
  return string.format('%.0f', number)
end

local function real(number)
  return string.format('%.17g', number)
end

-- Whether the fleet spec has another revision than the one that an action depends on. False if it depends on none.
local function is_late(revision)
  return revision and revision ~= tonumber(call('HGET', P .. ':orders', 'revision') or 0)
end

-- Whether a fence is that of the present driver. True also without a fence: the caller is no driver then.
local function is_driver(fence)
  return not fence or tonumber(call('HGET', P .. ':driver', 'fence') or 0) == fence
end

local function lane_name(version, lane)
  return #version .. ':' .. version .. ':' .. lane
end

local function heads_key(version, lane)
  return P .. ':heads:' .. lane_name(version, lane)
end

-- The key of a lane's groups whose first waiting request has a context of this size class (core's size_of).
local function sized_key(version, lane, size)
  return P .. ':sized:' .. size .. ':' .. lane_name(version, lane)
end

local function size_of(tokens)
  local _, exponent = math.frexp(math.max(1, tokens))
  return math.min(exponent - 1, LARGEST_SIZE)
end

-- The largest size class whose smallest context has fewer than `tokens` tokens; -1: none. See core's sizes_below.
local function largest_below(tokens)
  return tokens > 1 and size_of(tokens - 1) or -1
end

local function waiting_key(lane, gid)
  return P .. ':waiting:' .. #lane .. ':' .. lane .. ':' .. gid
end

-- The key of a lane's waiting suspects, which wait apart from all other requests. A worker holds one suspect at a time.
local function suspects_key(version, lane)
  return P .. ':suspects:' .. lane_name(version, lane)
end

local function batch_of(gid)
  return string.match(gid, '^[^/]*')
end

local function batch_key(gid)
  return P .. ':batch:' .. batch_of(gid)
end

-- ---- changes collected until flush()

local bumps, pages, deadlines, ended, dirty = {}, {}, {}, {}, {}

local function bump(key, field, by)
  local fields = bumps[key] or {}
  fields[field] = (fields[field] or 0) + by
  bumps[key] = fields
end

-- A page (core's Ledger) caches the fields of a batch that a verb may change several times. `dirty`: changed fields.
local PAGE = {'requests', 'ok', 'aborted', 'infra_failed', 'carried_over', 'entries', 'journal', 'longest',
  'started_at', 'tail_at'}

local function page_of(key)
  local page = pages[key]
  if not page then
    local row = call('HMGET', key, unpack(PAGE))
    page = {dirty = {}, pending = bumps[key] or {}}
    for place, field in ipairs(PAGE) do
      page[field] = tonumber(row[place] or 0) + (page.pending[field] or 0)
    end
    page.closed = page.ok + page.aborted + page.infra_failed + page.carried_over
    pages[key] = page
  end
  return page
end

local function write_on(page, field, value)
  page[field], page.dirty[field] = value, true
end

local function add_requests(key, count)
  local page = page_of(key)
  bump(key, 'requests', count)
  page.requests = page.requests + count
  write_on(page, 'tail_at', 0)
end

-- ---- groups and requests

local GROUP = {'version', 'ordinal', 'size', 'max_tokens', 'enqueued_at', 'prompt_tokens', 'lanes', 'biases',
  'revision', 'finished', 'longest_finished', 'longest_running', 'base', 'slope', 'probe', 'returned', 'tier',
  'ok', 'aborted', 'failed', 'carried', 'history', 'history_size', 'longest_earlier', 'content',
  'batch_ordinal', 'sizes', 'last_end', 'freed'}
local groups = {}

-- Returns the number of unfinished requests of a group (0 if no length is known), and the sum of their expected tokens:
-- core's expected_of.
local function expected_of(group)
  local known = group.finished > 0 and group.longest_finished or group.longest_earlier
  local open = group.size - group.ok - group.aborted - group.failed - group.carried
  open = (group.finished > 0 or known > 0) and open or 0
  return open, open * math.min(math.max(known, group.longest_running), group.max_tokens)
end

local function read_group(gid, data)
  local group, row = {id = gid}, unpack_row(data)
  for place = 1, #GROUP do
    group[GROUP[place]] = row[place]
  end
  group.open_known, group.open_expected = expected_of(group)
  return group
end

-- Updates the expected totals of the group's batch by the change of this group's expectation.
local function expect(group)
  local open, tokens = expected_of(group)
  if open ~= group.open_known or tokens ~= group.open_expected then
    bump(batch_key(group.id), 'open_known', open - group.open_known)
    bump(batch_key(group.id), 'open_expected', tokens - group.open_expected)
  end
  group.open_known, group.open_expected = open, tokens
end

local function group_of(gid)
  local group = groups[gid]
  if group == nil then
    local data = call('GET', P .. ':group:' .. gid)
    group = data and read_group(gid, data) or false
    groups[gid] = group
  end
  return group
end

local function save_group(group)
  local row = {}
  for place = 1, #GROUP do
    row[place] = group[GROUP[place]]
  end
  call('SET', P .. ':group:' .. group.id, pack(row))
end

local function view_of(group)
  return {group.id, int(group.revision), int(group.ordinal), int(group.size), int(group.max_tokens),
    real(group.enqueued_at), int(group.finished), int(group.longest_finished), int(group.longest_running),
    int(group.tier), int(group.longest_earlier), int(group.batch_ordinal or 0)}
end

local function lane_of(group, index)
  return group.lanes and group.lanes[index + 1] or ''
end

local function new_request(gid, index)
  return {id = gid .. '/' .. index, gid = gid, index = index, state = 'queued', leases = 0, losses = 0, expiries = 0, fence = 0,
    holder = '', claimed_at = 0, start = 0, generated = 0, turn = 0, reason = '', stop_reason = '', status = false}
end

local function load_request(gid, index)
  local id = gid .. '/' .. index
  local data = call('GET', P .. ':request:' .. id)
  if not data then
    return new_request(gid, index)
  end
  local row = unpack_row(data)
  return {id = id, gid = gid, index = index, state = row[1], leases = row[2], losses = row[3], fence = row[4],
    holder = row[5], claimed_at = row[6], start = row[7], generated = row[8], turn = row[9], reason = row[10],
    stop_reason = row[11], status = row[12], expiries = row[13] or 0, suspect = row[14], appended = row[15]}
end

local function request_of(rid)
  local gid, index = string.match(rid, '^(.*)/(%d+)$')
  return load_request(gid, tonumber(index))
end

local function save_request(request)
  local more = request.suspect or request.appended  -- a packed array must not contain nil before its end
  call('SET', P .. ':request:' .. request.id, pack({request.state, request.leases, request.losses, request.fence,
    request.holder, request.claimed_at, request.start, request.generated, request.turn, request.reason,
    request.stop_reason, request.status, (more or request.expiries > 0) and request.expiries or nil,
    more and (request.suspect or false), request.appended}))
end

local function note(event, request)
  local key = batch_key(request.gid)
  local page = page_of(key)
  write_on(page, 'journal', page.journal + 1)
  call('XADD', key .. ':journal', int(page.journal) .. '-0', 'entry',
    pack({now, event, request.id, request.holder, request.fence, request.generated}))
end

-- ---- the queue's two levels

-- The size class under which a group is stored; kept in the group only if it differs from the class of the prompt.
local function size_in(group, lane)
  return group.sizes and group.sizes[lane] or size_of(group.prompt_tokens)
end

local function drop_head(group, lane)
  call('ZREM', heads_key(group.version, lane), group.id)
  call('ZREM', sized_key(group.version, lane, size_in(group, lane)), group.id)
end

-- Puts a group into its lane. `score` ("-inf" for a probe) and `generated` belong to its first waiting request.
local function put_head(group, lane, score, generated)
  local place = score == '-inf' and (group.probe or 0) + generated or group.base + tonumber(score)
  local before, size = size_in(group, lane), size_of(group.prompt_tokens + generated)
  if size ~= before then
    call('ZREM', sized_key(group.version, lane, before), group.id)
    group.sizes = group.sizes or {}
    group.sizes[lane] = size
    dirty[group.id] = dirty[group.id] or {}
  end
  call('ZADD', heads_key(group.version, lane), place, group.id)
  call('ZADD', sized_key(group.version, lane, size), place, group.id)
end

local function refresh(group, lane)
  local front = call('ZRANGE', waiting_key(lane, group.id), 0, 0, 'WITHSCORES')
  if not front[1] then
    drop_head(group, lane)
  else
    local generated = group.returned > 0 and load_request(group.id, tonumber(front[1])).generated or 0
    put_head(group, lane, front[2], generated)
  end
end

-- Marks a group for flush(), which saves its row and updates its place in the lane (in all its lanes if none is given).
local function touch(group, lane)
  local lanes = dirty[group.id] or {}
  dirty[group.id] = lanes
  if lane then
    lanes[lane] = true
    return
  end
  for index = 0, group.lanes and group.size - 1 or 0 do
    lanes[lane_of(group, index)] = true
  end
end

-- Refills a lane's pending calls of workers to CALLS, or deletes them if no request waits: core's WaitingCounts.
local function call_workers(lane, waiting)
  local calls = P .. ':calls:' .. lane
  if waiting == 0 then
    call('DEL', calls)
    return
  end
  for _ = call('LLEN', calls) + 1, CALLS do
    call('RPUSH', calls, '')
  end
end

local function flush()
  for gid in pairs(dirty) do
    expect(groups[gid])
  end
  for key, fields in pairs(bumps) do
    for field, by in pairs(fields) do
      local count = call('HINCRBY', key, field, by)
      local lane = key == COUNTERS and string.match(field, '^waiting:(.*)')
      if lane then
        call_workers(lane, count)
      end
      -- A counter of zero is deleted, because the number of versions and workers is unlimited.
      if count == 0 and key == COUNTERS then
        call('HDEL', key, field)
      end
    end
  end
  for key, page in pairs(pages) do
    local row = {}
    for field in pairs(page.dirty) do
      row[#row + 1] = field
      row[#row + 1] = real(page[field])
    end
    if row[1] then
      call('HSET', key, unpack(row))
    end
  end
  if ended[1] then
    call('ZREM', DEADLINES, unpack(ended))
  end
  if deadlines[1] then
    call('ZADD', DEADLINES, unpack(deadlines))
  end
  for gid, lanes in pairs(dirty) do
    local group = groups[gid]
    for lane in pairs(lanes) do
      refresh(group, lane)
    end
    save_group(group)
  end
  bumps, pages, deadlines, ended, dirty = {}, {}, {}, {}, {}
end

-- unpack() of a list needs Lua's stack, whose size is limited. So long lists are written early.
local function flush_when_full()
  if #ended + #deadlines > 1000 then
    flush()
  end
end

local function waiting_score(group, index, generated)
  if index == 0 and group.probe then
    return '-inf'
  end
  return (group.biases and group.biases[index + 1] or 0) + group.slope * generated
end

local function is_suspect(request)
  return request.losses > 0 and request.losses >= math.min(SUSPECT_LOSSES, max_losses)
end

local function enqueue(group, request)
  local lane, index = lane_of(group, request.index), request.index
  if is_suspect(request) then
    local bias, grown = group.biases and group.biases[index + 1] or 0, group.slope * request.generated
    local score = index == 0 and group.probe and group.probe + request.generated or group.base + bias + grown
    call('ZADD', suspects_key(group.version, lane), score, request.id)
  else
    local score = waiting_score(group, index, request.generated)
    call('ZADD', waiting_key(lane, group.id), score, string.format('%04d', index))
  end
  bump(COUNTERS, 'waiting:' .. lane_name(group.version, lane), 1)
  group.returned = group.returned + 1
  touch(group, lane)
end

local function dequeue(group, request)
  local lane = lane_of(group, request.index)
  call('ZREM', waiting_key(lane, group.id), string.format('%04d', request.index))
  if request.losses > 0 then
    call('ZREM', suspects_key(group.version, lane), request.id)
  end
  bump(COUNTERS, 'waiting:' .. lane_name(group.version, lane), -1)
  if request.leases > 0 then
    group.returned = group.returned - 1
  end
  touch(group, lane)
end

-- Updates a group's revision, its priority (if given) and its place, after the caller has changed its facts.
local function place(group, priority)
  group.revision = group.revision + 1
  if priority then
    group.base, group.slope, group.probe = priority[1], priority[2], priority[3]
  end
  touch(group)
end

-- ---- leases

-- Returns "lost", "gap" or "ok" for a write with `fence` whose first token is number `offset` of the response.
local function check(request, fence, offset)
  if fence == 0 or request.fence ~= fence then
    return 'lost'
  end
  return offset > request.generated and 'gap' or 'ok'
end

-- Appends the new tokens and scores of a delta; the caller saves the request.
local function append(request, offset, tokens, logprobs)
  local known = (request.generated - offset) * ITEM_BYTES
  local recorded = #tokens > 0 and known * #logprobs / #tokens or 0 -- all tokens have equally many items
  if recorded < #logprobs then
    call('APPEND', P .. ':logprobs:' .. request.id, string.sub(logprobs, recorded + 1))
  end
  if known < #tokens then
    local fresh = (#tokens - known) / ITEM_BYTES
    call('APPEND', P .. ':tokens:' .. request.id, string.sub(tokens, known + 1))
    bump(batch_key(request.gid), 'tokens', fresh)
    request.generated = request.generated + fresh
  end
end
