-- Purpose    Deletes the data of a batch, so many requests at a time.
-- Guarantee  What is unfinished is cancelled first. A repeat goes on where the last call stopped. Counts and key stay for a
--            while, so that a late question finds them; so does the mark of a batch that is not there, so that a store
--            that has forgotten it does not take it again from others.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, most requests, seconds that counts and key stay}
-- Returns    1 while something is left

local args = unpack_row(ARGV[2])
local key, left = P .. ':batch:' .. int(args[1]), args[2]
call('HDEL', key, '')  -- changes nothing: after a first write a full server lets the rest pass
tick()
call('HSET', key, 'forgotten', 1)

-- Ends what is unfinished of a group, deletes its requests; true when all of it is gone. `erased`: requests that are.
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
