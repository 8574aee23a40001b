-- Purpose    Stores a heartbeat, and returns whether the worker has to drain.
-- Guarantee  A heartbeat of a past boot changes nothing. The first heartbeat of a new boot is evidence that the
--            previous boot died. A repeat changes only the time.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {worker name, boot, whether the worker claims, idle and busy seconds of this boot, the worker's token
--            limit of one request or nil, the worker's pace if its last claim found nothing, else 0}
-- ARGV[3]    the heartbeat, which only clients read
-- Returns    {1 if the worker has to drain, else 0; the fleet spec's revision; largest token limit of claiming workers}

local PAST_BOOTS = 16  -- the value of core's PAST_BOOTS
tick()
local args = unpack_row(ARGV[2])
local row = call('HMGET', P .. ':worker:' .. args[1], 'boot', 'idle', 'busy', 'before')
local reply = {call('SISMEMBER', P .. ':drains', args[1]), tonumber(call('HGET', P .. ':orders', 'revision') or 0), largest_limit()}
local past = {row[1] or nil}
for boot in string.gmatch(row[4] or '', '%S+') do
  if boot == args[2] then
    return reply
  end
  past[#past + 1] = boot
end
if row[1] == args[2] then
  call('DEL', P .. ':lost:' .. args[1])  -- the boot is alive: a stall let its leases expire
elseif row[1] then
  bury(args[1], args[2])
  call('HSET', P .. ':worker:' .. args[1], 'before', table.concat(past, ' ', 1, math.min(#past, PAST_BOOTS)))
end
for place, name in ipairs({'idle', 'busy'}) do
  local before = row[1] == args[2] and tonumber(row[place + 1] or 0) or 0
  if args[3 + place] > before then
    local sum = tonumber(call('HGET', COUNTERS, name .. '_seconds') or 0)
    call('HSET', COUNTERS, name .. '_seconds', real(sum + (args[3 + place] - before)))
  end
end
call('SADD', P .. ':workers', args[1])
call('HSET', P .. ':worker:' .. args[1], 'boot', args[2], 'seen_at', real(now), 'info', ARGV[3],
  'idle', real(args[4]), 'busy', real(args[5]))
if args[3] then
  count_in(args[1], args[6])
  note_free(args[1], args[7])
else
  count_out(args[1])
end
reply[3] = largest_limit()
return reply
