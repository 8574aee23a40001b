-- Purpose    Opens a batch and gives it the next number.
-- Guarantee  The same key returns the same batch while the key is stored. A batch that the store has lost gets the
--            number that it had before.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {version, spec (JSON), key or "", the batch's number before the loss or false, whether it takes the parked
--            groups}
-- Returns    {number, 1 if the batch is new, else 0}

tick()
local args = unpack_row(ARGV[2])
local remembered = P .. ':key:' .. args[3]
local known = args[3] ~= '' and call('GET', remembered)
if known and not args[4] then
  return {tonumber(known), 0}
end
local latest = tonumber(call('HGET', COUNTERS, 'batches') or 0)
local number = int(args[4] or issue(latest))
if call('HEXISTS', P .. ':batch:' .. number, 'spec') == 1 then
  return {tonumber(number), 0}
end
call('HSET', COUNTERS, 'batches', int(math.max(latest, args[4] or issue(latest))))
call('HSET', P .. ':batch:' .. number, 'version', args[1], 'spec', args[2], 'key', args[3], 'opened_at', real(now),
  'ordinal', call('HINCRBY', COUNTERS, 'opened', 1))
if args[5] then
  call('HSET', P .. ':batch:' .. number, 'takes_parked', 1)
end
call('ZADD', P .. ':batches', number, number)
if args[3] ~= '' and not known then
  call('SET', remembered, number)
end
return {tonumber(number), 1}
