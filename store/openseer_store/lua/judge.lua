-- Purpose    Stores verdicts on groups of a batch.
-- Guarantee  The latest verdict counts, also if calls are repeated in another order. Unknown groups are skipped.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, list of {name, valid}, number that the call got before or false}
-- Returns    {number of groups that exist, the call's number}

local args = unpack_row(ARGV[2])
local key, known = P .. ':batch:' .. int(args[1]), 0
local number = args[3] or issue(tonumber(call('HGET', key, 'judged') or 0))
if not args[3] then
  call('HSET', key, 'judged', int(number))
end
local kinds = {['1'] = 'valid', ['0'] = 'invalid'}
for _, row in ipairs(args[2]) do
  if call('EXISTS', P .. ':group:' .. int(args[1]) .. '/' .. row[1]) == 1 then
    known = known + 1
    if number >= tonumber(call('HGET', key .. ':judged', row[1]) or 0) then
      local earlier, verdict = call('HGET', key .. ':verdicts', row[1]), row[2] and '1' or '0'
      if earlier then
        bump(key, kinds[earlier], -1)
      end
      bump(key, kinds[verdict], 1)
      call('HSET', key .. ':verdicts', row[1], verdict)
      call('HSET', key .. ':judged', row[1], int(number))
    end
  end
end
flush()
return {known, number}
