-- The claiming workers, and the fleet load for each of them. Loaded after _shared.lua. The functions do the same as
-- core's Claimers, and as the methods of their names in openseer_core/model/request_queue.py.

local CLAIMING, LIMITS, FREE, UNLIMITED = P .. ':claiming', P .. ':limits', P .. ':free', 2 ^ 31 - 1
local IN_VAIN = P .. ':in_vain'
local FREE_WINDOW = 8

local function count_in(worker, limit)
  call('ZADD', CLAIMING, real(now), worker)
  call('ZADD', LIMITS, limit or UNLIMITED, worker)
end

local function note_free(worker, pace)
  if pace > 0 then
    call('ZADD', FREE, real(-pace), worker)
  else
    call('ZREM', FREE, worker)
  end
end

local function count_out(worker)
  call('ZREM', CLAIMING, worker)
  call('ZREM', LIMITS, worker)
  call('ZREM', FREE, worker)
  call('HDEL', IN_VAIN, worker)
end

local function largest_limit()
  return tonumber(call('ZRANGE', LIMITS, -1, -1, 'WITHSCORES')[2] or 0)
end

local function free_pace(worker, limit, versions)
  local row = call('ZRANGE', FREE, 0, FREE_WINDOW - 1, 'WITHSCORES')
  local wanted = row[1] and pack(versions)
  for place = 1, #row, 2 do
    local other = row[place]
    if other ~= worker and tonumber(call('ZSCORE', LIMITS, other) or 0) >= limit
      and (call('HGET', IN_VAIN, other) or wanted) == wanted then
      return -tonumber(row[place + 1])
    end
  end
  return 0
end

-- Returns {waiting, best, mine, inflight, workers, free pace}: core's FleetLoad.
local function fleet_load(worker, versions, lanes)
  local fields, best = {'worker:' .. worker, 'inflight'}, 'inf'
  local limit = tonumber(call('ZSCORE', LIMITS, worker) or 0)
  local is_smaller = 0 < limit and limit < largest_limit()
  local function look(key)
    local front = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if front[1] and tonumber(front[2]) < tonumber(best) then
      best = front[2]
    end
  end
  for _, version in ipairs(versions) do
    for _, lane in ipairs(lanes) do
      fields[#fields + 1] = 'waiting:' .. lane_name(version, lane)
      if is_smaller then
        for size = 0, largest_below(limit) do
          look(sized_key(version, lane, size))
        end
      else
        look(heads_key(version, lane))
      end
    end
  end
  local counts, waiting = call('HMGET', COUNTERS, unpack(fields)), 0
  for place = 3, #fields do
    waiting = waiting + tonumber(counts[place] or 0)
  end
  return {waiting, best, tonumber(counts[1] or 0), tonumber(counts[2] or 0), call('ZCOUNT', LIMITS, limit, '+inf'),
    real(free_pace(worker, limit, versions))}
end
