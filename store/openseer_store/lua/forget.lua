-- Purpose    Deletes the data of a batch, some groups at a time.
-- Guarantee  What is unfinished is cancelled first. Counts and key stay for a while, so that a late question finds them.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, most groups, seconds that counts and key stay}
-- Returns    how many groups are left

local args = unpack_row(ARGV[2])
local key = P .. ':batch:' .. int(args[1])
local gids = call('LPOP', key .. ':groups', args[2]) or {}
tick()  -- not first: a full server may forget
call('HSET', key, 'forgotten', 1)
for _, gid in ipairs(gids) do
  end_group(gid, 'cancel')
  flush()
  erase(group_of(gid))
end
local left = call('LLEN', key .. ':groups')
if left == 0 then
  call('DEL', key .. ':results', key .. ':journal', key .. ':verdicts')
  call('ZREM', P .. ':batches', int(args[1]))
  local remembered = call('HGET', key, 'key')
  call('EXPIRE', key, args[3])
  if remembered and remembered ~= '' then
    call('EXPIRE', P .. ':key:' .. remembered, args[3])
  end
end
return left
