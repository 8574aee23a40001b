-- Purpose    Reads a batch's results stream from a stream id on, with the data of its results.
-- Guarantee  Changes nothing. A result contains its request as it was at that time, even if the request has continued
--            since. Stops early if the reply has max_bytes or more, but returns at least one entry.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, first stream id, limit, max_bytes}
-- Returns    {entries, specs}; a result: {cursor, request, status, reason, stop_reason, finished_at, tokens, logprobs,
--            chunks, turn, version}; a group's end: {cursor, group, ended_at, size, ok, aborted, infra_failed,
--            carried_over}; specs: group, spec, group, spec, … (each group once).

local args = unpack_row(ARGV[2])
local entries, specs, sent, bytes = {}, {}, {}, 0

local function spec_of(gid)
  if not sent[gid] then
    sent[gid] = true
    specs[#specs + 1] = gid
    specs[#specs + 1] = call('GET', P .. ':spec:' .. gid) or ''
    bytes = bytes + #specs[#specs]
  end
end

local function result_of(cursor, row)
  local rid, last = row[1], row[6] * ITEM_BYTES - 1
  local tokens, logprobs, chunks = '', '', {}
  if last > 0 then
    tokens = call('GETRANGE', P .. ':tokens:' .. rid, 0, last)
    local items = call('STRLEN', P .. ':logprobs:' .. rid) / call('STRLEN', P .. ':tokens:' .. rid)
    logprobs = items > 0 and call('GETRANGE', P .. ':logprobs:' .. rid, 0, (last + 1) * items - 1) or ''
  end
  if row[7] > 0 then
    chunks = call('LRANGE', P .. ':chunks:' .. rid, 0, row[7] - 1)
  end
  spec_of(string.match(rid, '^(.*)/'))
  bytes = bytes + #tokens + #logprobs
  return {cursor, rid, row[2], row[3], row[4], real(row[5]), tokens, logprobs, chunks, row[8], row[9]}
end

for _, entry in ipairs(call('XRANGE', P .. ':batch:' .. int(args[1]) .. ':results', args[2], '+', 'COUNT', args[3])) do
  local kind, row = entry[2][1], unpack_row(entry[2][2])
  if kind == 'result' then
    entries[#entries + 1] = result_of(entry[1], row)
  else
    entries[#entries + 1] = {entry[1], row[1], real(row[2]), row[3], row[4], row[5], row[6], row[7]}
  end
  if bytes >= args[4] then
    break
  end
end
return {entries, specs}
