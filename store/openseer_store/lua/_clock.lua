-- The job's clock: core's JobClock. Loaded after _numbers.lua, which reads its fields, and before every verb.

local CLOCK_STEP_SECONDS = 1.5

local function server_time()
  if ARGV[1] ~= '' then
    return tonumber(ARGV[1])
  end
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Sets `now`, `grace_until` and `max_losses`. Returns the fields of the clock to write, and their values, alternating.
local function read_clock(lease_seconds, losses)
  local wall, last_wall = server_time(), tonumber(stored[3] or nil)
  local time, longest = tonumber(stored[4] or nil), tonumber(stored[6] or 0)
  now, grace_until = time or wall, tonumber(stored[5] or 0)
  local fields = {'wall', real(wall)}
  if lease_seconds and lease_seconds > longest then
    longest = lease_seconds
    fields[3], fields[4] = 'longest_lease', real(longest)
  end
  max_losses = losses or tonumber(stored[7] or math.huge)
  if losses and int(losses) ~= stored[7] then
    fields[#fields + 1], fields[#fields + 2] = 'max_losses', int(losses)
  end
  if time then
    local step = last_wall and wall - last_wall or CLOCK_STEP_SECONDS + 1
    now = time + math.min(math.max(step, 0), CLOCK_STEP_SECONDS)
    if step < 0 or step > CLOCK_STEP_SECONDS then
      local stall = last_wall and step > 0 and step - CLOCK_STEP_SECONDS or longest
      grace_until = math.max(grace_until, now + math.min(longest, stall))
      fields[#fields + 1], fields[#fields + 2] = 'grace_until', real(grace_until)
    end
  end
  fields[#fields + 1], fields[#fields + 2] = 'job_time', real(now)
  return fields
end

-- Every verb that writes begins with tick(), whose write is the verb's first. A server without free memory refuses it,
-- and so the whole verb.
local function tick(lease_seconds, losses)
  call('HSET', STORE, unpack(read_clock(lease_seconds, losses)))
end
