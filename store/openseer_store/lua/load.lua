-- Purpose    Reads the number of waiting and running requests of the job.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    {running, idle seconds, busy seconds, counter, count, …}; a counter: "<n>:<version>:<lane>", with the
--            count of the lane's waiting requests

local row = call('HMGET', COUNTERS, 'inflight', 'idle_seconds', 'busy_seconds')
local found = {tonumber(row[1] or 0), row[2] or '0', row[3] or '0'}
local counters = call('HGETALL', COUNTERS)
for place = 1, #counters, 2 do
  local lane = string.match(counters[place], '^waiting:(.*)$')
  if lane then
    found[#found + 1] = lane
    found[#found + 1] = tonumber(counters[place + 1])
  end
end
return found
