-- The numbers of the store's epoch: core's numbers.py. Loaded after _shared.lua and before every verb except `epoch`
-- and `purge`. Also reads the fields of the job's clock, for _clock.lua.
local stored = call('HMGET', STORE, 'epoch', 'base', 'wall', 'job_time', 'grace_until', 'longest_lease', 'max_losses')
local epoch, base = stored[1], stored[2]
if not epoch then
  return redis.error_reply('NOEPOCH the store has lost all its data')
end
if call('EXISTS', P .. ':purging') == 1 then
  return redis.error_reply('PURGING the job is being deleted')
end

-- The number that follows `last`.
local function issue(last)
  return math.max(last, tonumber(base or 0)) + 1
end

-- The fence that follows `last`. It is above all fences of earlier epochs, even if the store has lost their data.
local function issue_fence(last)
  return math.max(last, tonumber(epoch) * NUMBERS_PER_MILLISECOND) + 1
end
