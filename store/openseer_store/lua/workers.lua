-- Purpose    Reads the last heartbeat of every registered worker.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    list of {name, boot, seen_at, info, number of requests that the worker runs}, by name

local names, workers = call('SMEMBERS', P .. ':workers'), {}
table.sort(names)
for _, name in ipairs(names) do
  local row = call('HMGET', P .. ':worker:' .. name, 'boot', 'seen_at', 'info')
  workers[#workers + 1] = {name, row[1], row[2], row[3], tonumber(call('HGET', COUNTERS, 'worker:' .. name) or 0)}
end
return workers
