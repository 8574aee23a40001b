-- Purpose    Reads all that is held of one request, at one moment.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {group, index}
-- Returns    {state, fence, tokens, logprobs, chunks, turn, holder, reason}, or nothing when the group or the index is unknown

local args = unpack_row(ARGV[2])
local group = group_of(args[1])
if not group or args[2] >= group.size then
  return {}
end
local request = load_request(args[1], args[2])
local rid = request.id
return {request.state, int(request.fence), call('GET', P .. ':tokens:' .. rid) or '',
  call('GET', P .. ':logprobs:' .. rid) or '', call('LRANGE', P .. ':chunks:' .. rid, 0, -1), request.turn,
  request.holder, request.reason}
