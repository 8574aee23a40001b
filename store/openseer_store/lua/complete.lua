-- Purpose    Ends requests: writes last tokens, result, the group's facts and its siblings' scores, all in one step.
-- Guarantee  A request gets exactly one result. A finish with a rescore of an older revision writes nothing. If the
--            group has a history, the first tokens and the length of a complete response are stored for later groups
--            with the same prompt.
-- KEYS[1]    the job's prefix
-- ARGV[2]    list of {request, fence, offset, status, reason, stop_reason, rescore or false}; a rescore: {the
--            revision from which it was computed, base, slope, probe or false}
-- ARGV[3…]   tokens and log-probabilities of each finish, alternating
-- Returns    list of {outcome, have, view or nothing}

local EVENTS = {ok = 'complete', aborted = 'abort', infra_failed = 'fail'}

local function complete(finish, tokens, logprobs)
  local request = request_of(finish[1])
  local outcome = check(request, finish[2], finish[3])
  if outcome ~= 'ok' then
    return {outcome, outcome == 'lost' and 0 or request.generated}
  end
  local group = group_of(request.gid)
  if request.state == 'queued' then
    return {'lost', 0}
  end
  if request.state ~= 'leased' then
    return {'ok', request.generated, view_of(group)}
  end
  local rescore = finish[7]
  if rescore and rescore[1] ~= group.revision then
    return {'stale', request.generated, view_of(group)}
  end
  append(request, finish[3], tokens, logprobs)
  if finish[4] == 'ok' then
    absolve(request)
    group.finished = group.finished + 1
    group.longest_finished = math.max(group.longest_finished, request.generated)
    place(group, rescore and {rescore[2], rescore[3], rescore[4]})
    if group.history and request.generated > 0 then
      keep(group, request)
    end
  end
  close(request, EVENTS[finish[4]], finish[4], finish[5], finish[6])
  return {'ok', request.generated, view_of(group)}
end

tick()
local replies = {}
for number, finish in ipairs(unpack_row(ARGV[2])) do
  replies[number] = complete(finish, ARGV[1 + 2 * number], ARGV[2 + 2 * number])
end
flush()
return replies
