-- Purpose    Deletes the data of a batch, a limited number of requests per call.
-- Guarantee  Unfinished requests are cancelled first. A repeat continues after the last call. Counts and key stay
--            for a limited time, for late readers. The mark `forgotten` is also set if the batch is missing: a store
--            that has lost the batch does not accept it again from other clients.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, request limit, time in seconds for which counts and key stay}
-- Returns    1 while data are left, then 0

local args = unpack_row(ARGV[2])
local key, left = P .. ':batch:' .. int(args[1]), args[2]
call('HDEL', key, '')  -- changes nothing; a full server accepts all writes after the first
tick()
call('HSET', key, 'forgotten', 1)

-- Ends a group's unfinished requests, then deletes its requests. Returns true if all are deleted. `erased`: the number
-- of deleted requests.
local function is_gone(group)
  for index = 0, group.size - 1 do
    if has_ended(group) or left <= 0 then
      break
    end
    left = left - end_requests(group, 'cancel', index, index)
  end
  flush()
  local erased = tonumber(call('HGET', key, 'erased') or 0)
  local next_one = has_ended(group) and left > 0 and erase_requests(group, erased, left) or erased
  left = left - (next_one - erased)
  call('HSET', key, 'erased', next_one)
  return next_one == group.size
end

while true do
  local gid = call('LINDEX', key .. ':groups', 0)
  if not gid then
    break
  end
  local group = group_of(gid)
  if group and not is_gone(group) then
    return 1
  end
  call('UNLINK', P .. ':group:' .. gid, P .. ':spec:' .. gid)
  call('HDEL', key, 'erased')
  call('LPOP', key .. ':groups')
  if left <= 0 then
    return 1
  end
end
call('UNLINK', key .. ':results', key .. ':journal', key .. ':verdicts', key .. ':judged')
call('ZREM', P .. ':batches', int(args[1]))
local remembered = call('HGET', key, 'key')
call('EXPIRE', key, args[3])
if remembered and remembered ~= '' then
  call('EXPIRE', P .. ':key:' .. remembered, args[3])
end
return 0
