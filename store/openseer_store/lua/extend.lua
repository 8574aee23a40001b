-- Purpose    Appends new tokens, renews the leases, writes new facts of groups, and reads the fleet load.
-- Guarantee  Only a write with the holder's fence is accepted. A repeat changes only the deadline.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {worker name, versions, lanes, lease_seconds, deltas, rescores}; a delta: {request, fence, offset}; a
--            rescore: {group, the revision from which it was computed, longest_running, base, slope, probe or false}
-- ARGV[3…]   tokens and log-probabilities of each delta, alternating
-- Returns    {replies, views, fleet load}; a reply: {outcome, have}; views of groups whose rescore was computed from an
--            older revision

local args = unpack_row(ARGV[2])
local lease_seconds, replies, views = args[4], {}, {}
tick(lease_seconds)

for number, delta in ipairs(args[5]) do
  local request = request_of(delta[1])
  local outcome, have = check(request, delta[2], delta[3]), request.generated
  if outcome == 'ok' and request.state ~= 'leased' then
    outcome = 'lost'
  end
  if outcome == 'ok' then
    append(request, delta[3], ARGV[1 + 2 * number], ARGV[2 + 2 * number])
    if request.generated > have then
      have = request.generated
      save_request(request)
    end
    deadlines[#deadlines + 1] = now + lease_seconds
    deadlines[#deadlines + 1] = request.id
    flush_when_full()
  end
  replies[number] = {outcome, outcome == 'lost' and 0 or have}
end

for _, rescore in ipairs(args[6]) do
  local group = group_of(rescore[1])
  if group and group.revision == rescore[2] then
    group.longest_running = math.max(group.longest_running, rescore[3])
    place(group, {rescore[4], rescore[5], rescore[6]})
  elseif group then
    views[#views + 1] = view_of(group)
  end
end

flush()
return {replies, views, fleet_load(args[1], args[2], args[3])}
