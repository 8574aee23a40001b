-- Purpose    Reads the specs of a batch's groups in the order of submission.
-- Guarantee  Changes nothing. A group that was freed has an empty spec. Stops early once the answer holds max_bytes, but gives at least one.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, first group, last group, max_bytes} (places, both included)
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
