-- Purpose    Appends tokens that the model did not sample to a response whose turn has ended, and queues it again.
-- Guarantee  A repeat of the same turn changes nothing. The response is removed from the responses that are stored for
--            later groups, because it was not complete. A repeat after a loss applies only to a response of an earlier
--            epoch.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group, index, turn, whether this is a repeat after a loss}
-- ARGV[3]    the tokens
-- Returns    {"ok" | "unknown" | "freed" | "other" (this turn was continued with other tokens) | "state" | "room", state,
--            turn, generated, max_tokens}

tick()
local args = unpack_row(ARGV[2])
local group = group_of(args[1])
if not group or args[2] >= group.size then
  return {'unknown'}
end
local request, added = load_request(args[1], args[2]), #ARGV[3] / ITEM_BYTES
local function answer(word)
  return {word, request.state, request.turn, request.generated, int(group.max_tokens)}
end

-- Whether the request's present turn began with these tokens; true for requests of an earlier release, which lack the
-- record of these tokens.
local function is_same()
  if not request.appended then
    return true
  end
  local first, count = unpack(request.appended)
  local tokens, last = P .. ':tokens:' .. request.id, (first + count) * ITEM_BYTES - 1
  return added == count and (count == 0 or call('GETRANGE', tokens, first * ITEM_BYTES, last) == ARGV[3])
end

if group.freed then
  return answer('freed')
end
if request.turn == args[3] + 1 then
  return answer(is_same() and 'ok' or 'other')
end
if request.state ~= 'done' or request.turn ~= args[3] or args[4] and request.fence >= issue_fence(0) then
  return answer('state')
end
if request.generated + added >= group.max_tokens then
  return answer('room')
end
if group.history then
  take_back(group, request)
end
local logprobs, start = P .. ':logprobs:' .. request.id, request.generated
-- As core's token_scores.appended_scores: log-probability 0, rank 0, and for each pair token 0 with NaN.
local items = start > 0 and call('STRLEN', logprobs) / (start * ITEM_BYTES) or 1
if items > 0 then
  local heads = math.min(items, 2)
  local record = string.rep('\0', heads * ITEM_BYTES) .. string.rep('\0\0\0\0\0\0\192\127', (items - heads) / 2)
  call('APPEND', logprobs, string.rep(record, added))
end
if added > 0 then
  call('APPEND', P .. ':tokens:' .. request.id, ARGV[3])
  call('RPUSH', P .. ':chunks:' .. request.id,
    pack({'', request.fence, start, start + added, now, now, 'append', group.version}))
end
request.generated, request.turn, request.state = start + added, request.turn + 1, 'queued'
request.appended, request.reason, request.stop_reason, request.status = {start, added}, '', '', false
save_request(request)
note('go_on', request)
local key = batch_key(group.id)
if has_ended(group) then
  bump(key, 'groups_ended', -1)
end
if group.ok == group.size then
  bump(key, 'groups_whole', -1)
end
group.ok = group.ok - 1
bump(key, 'ok', -1)
bump(key, 'ok_tokens', -start)
bump(key, 'closed_tokens', -request.generated)  -- so that appended tokens do not count
page_of(key).closed = page_of(key).closed - 1
enqueue(group, request)
flush()
return answer('ok')
