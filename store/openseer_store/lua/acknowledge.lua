-- Purpose    Notes that the reader has stored all entries of a batch's results stream up to a number, and deletes data.
-- Guarantee  With a driver's fence, only for the present driver. The number never falls. In a trainer's sealed batch
--            the acknowledged entries are deleted. If they include the last end of a group, the group's tokens,
--            log-probabilities, chunks and spec are deleted, too. A driver's batch keeps all data, for the audit at the
--            end of the run.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, number of the entry, driver's fence or false, limit of requests whose data are deleted, 0: none}
-- Returns    0 for an old driver; 2 if more data have to be deleted (the caller repeats the call); else 1

local args = unpack_row(ARGV[2])
if not is_driver(args[3]) then
  return 0
end
local key, left = P .. ':batch:' .. int(args[1]), args[4]
call('HDEL', key, '')  -- changes nothing; a full server accepts all writes after the first
local known = call('HMGET', key, 'acknowledged', 'forgotten')
local safe = math.max(args[2], tonumber(known[1] or 0))
if args[2] == safe then
  call('HSET', key, 'acknowledged', int(safe))
end
if args[1] <= 0 or left == 0 or known[2] or not is_sealed(key) then
  return 1
end

local function free(group)
  for index = 0, group.size - 1 do
    local request = load_request(group.id, index)
    request.fence, request.generated = 0, 0
    save_request(request)
    call('UNLINK', P .. ':tokens:' .. request.id, P .. ':logprobs:' .. request.id, P .. ':chunks:' .. request.id)
  end
  call('UNLINK', P .. ':spec:' .. group.id)
  group.freed = true
  dirty[group.id] = dirty[group.id] or {}
end

local entries, last = call('XRANGE', key .. ':results', '-', int(safe) .. '-0', 'COUNT', left), nil
for _, entry in ipairs(entries) do
  if left <= 0 then
    break
  end
  local number, row = tonumber(string.match(entry[1], '^%d+')), unpack_row(entry[2][2])
  local group = entry[2][1] == 'group' and group_of(row[1])
  if group and group.last_end == number and has_ended(group) then
    free(group)
    left = left - group.size
  end
  left, last = left - 1, number
end
if last then
  call('XTRIM', key .. ':results', 'MINID', '=', int(last) .. '-1')
  call('HSET', key, 'swept', int(last))
end
flush()
return left <= 0 and 2 or 1
