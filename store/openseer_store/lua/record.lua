-- Purpose    Reads all data of one request, at one moment.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group, index, first token to return}
-- Returns    {state, fence, tokens, logprobs, chunks, turn, holder, reason}, or nothing when the group or the index is
--            unknown

local args = unpack_row(ARGV[2])
local group = group_of(args[1])
if not group or args[2] >= group.size then
  return {}
end
local request = load_request(args[1], args[2])
local rid, first = request.id, args[3] * ITEM_BYTES
local logprobs, length = P .. ':logprobs:' .. rid, call('STRLEN', P .. ':tokens:' .. rid)
local items = length > 0 and call('STRLEN', logprobs) / length or 0
return {request.state, int(request.fence), call('GETRANGE', P .. ':tokens:' .. rid, first, -1),
  call('GETRANGE', logprobs, first * items, -1), call('LRANGE', P .. ':chunks:' .. rid, 0, -1), request.turn,
  request.holder, request.reason}
