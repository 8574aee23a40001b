-- Purpose    Reads all data of one request in one step.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group, index, first token to return, most tokens to return (-1: all)}
-- Returns    {state, fence, tokens, logprobs, chunks, turn, holder, reason}, or nothing if the group or the index is
--            unknown

local args = unpack_row(ARGV[2])
local group = group_of(args[1])
if not group or args[2] >= group.size then
  return {}
end
local request = load_request(args[1], args[2])
local rid, first = request.id, args[3] * ITEM_BYTES
local tokens, logprobs = P .. ':tokens:' .. rid, P .. ':logprobs:' .. rid
local length = call('STRLEN', tokens)
local items = length > 0 and call('STRLEN', logprobs) / length or 0
local stop = args[4] < 0 and length or math.min(length, first + args[4] * ITEM_BYTES)
local function part(key, width)
  return stop > first and call('GETRANGE', key, first * width, stop * width - 1) or ''
end
return {request.state, int(request.fence), part(tokens, 1), part(logprobs, items),
  call('LRANGE', P .. ':chunks:' .. rid, 0, -1), request.turn, request.holder, request.reason}
