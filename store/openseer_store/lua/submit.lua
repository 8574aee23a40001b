-- Purpose    Queues groups.
-- Guarantee  An existing group is not changed; another group with its name is refused. A new group gets the present
--            version of its batch. A queued request costs only its entry in one sorted set. A group that the store has
--            accepted and lost was submitted before the seal, so it is also accepted after the seal.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {list of group ids, driver's fence or false, whether this is a repeat after a loss}
-- ARGV[3…]   of each group, alternating: its row (msgpack; GROUP in _shared.lua names the fields) and its spec, which
--            only clients read
-- Returns    {number of new groups, the first refused group or "", the reason: "closed" (its batch is sealed or
--            deleted), "taken" (another group has its name), "fenced" (an old driver) or ""}; groups after the refused
--            one are not queued

local function fill(group)
  local waiting = {}
  for index = 0, group.size - 1 do
    local lane = lane_of(group, index)
    local members = waiting[lane] or {}
    members[#members + 1] = waiting_score(group, index, 0)
    members[#members + 1] = string.format('%04d', index)
    waiting[lane] = members
  end
  for lane, members in pairs(waiting) do
    for first = 1, #members, 1000 do
      call('ZADD', waiting_key(lane, group.id), unpack(members, first, math.min(first + 999, #members)))
    end
    bump(COUNTERS, 'waiting:' .. lane_name(group.version, lane), #members / 2)
    refresh(group, lane)
  end
end

local function add(gid, row, spec, again)
  local present = group_of(gid)
  if present then
    local content = read_group(gid, row).content
    if present.content and present.content ~= content then
      return nil, 'taken'
    end
    return 0
  end
  local batch = batch_key(gid)
  local known = call('HMGET', batch, 'sealed', 'forgotten', 'version')
  if known[2] or known[1] and not again and is_sealed(batch) then
    return nil, 'closed'
  end
  groups[gid] = nil
  call('SET', P .. ':group:' .. gid, row)
  call('SET', P .. ':spec:' .. gid, spec)
  local group = group_of(gid)
  if known[3] and known[3] ~= group.version then
    group.version = known[3]
    save_group(group)
  end
  group.open_known, group.open_expected = 0, 0
  expect(group)
  fill(group)
  bump(batch, 'groups', 1)
  bump(batch, 'submitted', 1)
  add_requests(batch, group.size)
  call('RPUSH', batch .. ':groups', gid)
  return 1
end

local names, driver, again = unpack(unpack_row(ARGV[2]))
if not is_driver(driver) then
  return {0, names[1], 'fenced'}
end
local new, refused, reason = 0, '', ''
for number, gid in ipairs(names) do
  local added, why = add(gid, ARGV[1 + 2 * number], ARGV[2 + 2 * number], again)
  if not added then
    refused, reason = gid, why
    break
  end
  new = new + added
end
flush()
return {new, refused, reason}
