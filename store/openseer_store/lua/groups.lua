-- Purpose    Reads the specs of a batch's groups in the order of submission.
-- Guarantee  Changes nothing. A group whose data were deleted has an empty spec. Stops early if the reply has max_bytes
--            or more, but returns at least one group.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, first group, last group (numbers, both included), max_bytes}
-- Returns    {group, spec, group, spec, …}

local args = unpack_row(ARGV[2])
local specs, bytes = {}, 0
for _, gid in ipairs(call('LRANGE', P .. ':batch:' .. int(args[1]) .. ':groups', args[2], args[3])) do
  local spec = call('GET', P .. ':spec:' .. gid) or ''
  specs[#specs + 1] = gid
  specs[#specs + 1] = spec
  bytes = bytes + #spec
  if bytes >= args[4] then
    break
  end
end
return specs
