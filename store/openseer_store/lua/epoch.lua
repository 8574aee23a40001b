-- Purpose    Begins a new epoch if the server's process is not the one that issued the last numbers.
-- Guarantee  Runs on every new connection before any verb. Each process of the server has an epoch of its own, even if
--            the epoch of the process before it was lost with the last writes: core's numbers.py.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {run_id of the server, the latest epoch known to the client or 0}
-- Returns    the epoch

local run_id, known = unpack(unpack_row(ARGV[2]))
call('PERSIST', STORE)  -- a deleted job of this name may be expiring; this job is new
local row = call('HMGET', STORE, 'run_id', 'epoch', 'base')
local last = tonumber(row[2] or 0)
if row[1] == run_id and last >= known then
  if known > 0 and known < last and row[3] == '0' then
    -- The store restarted empty, and its first client knew no earlier epoch.
    call('HSET', STORE, 'base', int(last * NUMBERS_PER_MILLISECOND))
  end
  return row[2]
end
call('HDEL', STORE, 'wall')  -- the next step of the clock counts as a stall
local time = call('TIME')
local wall = (tonumber(time[1]) - EPOCHS_BEGIN) * 1000 + math.floor(tonumber(time[2]) / 1000)
local latest = math.max(last, known)
local epoch = wall > latest and wall or latest + SETBACK
local first = last == 0 and known == 0
call('HSET', STORE, 'run_id', run_id, 'epoch', int(epoch), 'base',
  first and '0' or int(epoch * NUMBERS_PER_MILLISECOND))
return int(epoch)
