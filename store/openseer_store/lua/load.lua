-- Purpose    Says how much waits and runs in the whole job.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    {running, counter, count, …}; a counter: "<n>:<version>:<lane>" of requests that wait

local found = {tonumber(call('HGET', COUNTERS, 'inflight') or 0)}
local counters = call('HGETALL', COUNTERS)
for place = 1, #counters, 2 do
  local lane = string.match(counters[place], '^waiting:(.*)$')
  if lane then
    found[#found + 1] = lane
    found[#found + 1] = tonumber(counters[place + 1])
  end
end
return found
