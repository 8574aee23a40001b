-- Purpose    Opens a batch and gives it the next number.
-- Guarantee  The same key gives the same batch, for as long as the key is remembered.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {version, spec (JSON), key or ""}
-- Returns    {number, 1 when it is new}

tick()
local args = unpack_row(ARGV[2])
local remembered = P .. ':key:' .. args[3]
local known = args[3] ~= '' and call('GET', remembered)
if known then
  return {tonumber(known), 0}
end
local number = int(issue(tonumber(call('HGET', COUNTERS, 'batches') or 0)))
call('HSET', COUNTERS, 'batches', number)
call('HSET', P .. ':batch:' .. number, 'version', args[1], 'spec', args[2], 'key', args[3], 'opened_at', real(now))
call('ZADD', P .. ':batches', number, number)
if args[3] ~= '' then
  call('SET', remembered, number)
end
return {tonumber(number), 1}
