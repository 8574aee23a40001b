-- Purpose    Reads results after a cursor with all that belongs to them.
-- Guarantee  Changes nothing. Stops early once the answer holds max_bytes, but gives at least one.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {first stream id, limit, max_bytes}
-- Returns    {results, specs}; a result: {cursor, request, status, reason, stop_reason, finished_at, tokens, logprobs,
--            chunks}; specs: group, spec, group, spec, … (each group once).

local args = unpack_row(ARGV[2])
local results, specs, sent, bytes = {}, {}, {}, 0
for _, entry in ipairs(call('XRANGE', RESULTS, args[1], '+', 'COUNT', args[2])) do
  local row = unpack_row(entry[2][2])
  local rid = row[1]
  local gid = string.match(rid, '^(.*)/')
  if not sent[gid] then
    sent[gid] = true
    specs[#specs + 1] = gid
    specs[#specs + 1] = call('GET', P .. ':spec:' .. gid)
    bytes = bytes + #specs[#specs]
  end
  local tokens = call('GET', P .. ':tokens:' .. rid) or ''
  local logprobs = call('GET', P .. ':logprobs:' .. rid) or ''
  results[#results + 1] = {entry[1], rid, row[2], row[3], row[4], real(row[5]), tokens, logprobs,
    call('LRANGE', P .. ':chunks:' .. rid, 0, -1)}
  bytes = bytes + #tokens + #logprobs
  if bytes >= args[3] then
    break
  end
end
return {results, specs}
