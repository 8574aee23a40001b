-- Purpose    Reads new tokens of groups' responses, and the stored responses of earlier batches.
-- Guarantee  Changes nothing. Earlier responses take up to half of max_bytes, rounded up to all responses of a group.
--            If the new tokens exceed the rest, responses with few new tokens return all of them, and the others share
--            the remaining bytes equally.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {queries, max_bytes}; a query: {group, whether to return earlier responses, {index, known tokens, index,
--            …}}
-- Returns    list of {group, {index, position, tokens, index, …}, earlier responses or nothing}; groups with
--            nothing to return are left out

local args = unpack_row(ARGV[2])
local half = math.floor(args[2] / 2)
local found, fresh, total, room = {}, {}, 0, half

local function earlier_of(gid, wanted)
  local group = wanted and room > 0 and group_of(gid)
  if not group then
    return false
  end
  local kept = group.history and call('LRANGE', earlier_keys(group), 0, -1) or {}
  for _, tokens in ipairs(kept) do
    room = room - #tokens
  end
  return kept
end

for number, query in ipairs(args[1]) do
  local known = query[3]
  found[number] = {query[1], {}, earlier_of(query[1], query[2])}
  for place = 1, #known, 2 do
    local key, position = P .. ':tokens:' .. query[1] .. '/' .. known[place], known[place + 1]
    local count = call('STRLEN', key) / ITEM_BYTES - position
    if count > 0 then
      fresh[#fresh + 1] = {key = key, index = known[place], position = position, count = count, given = count,
        place = #fresh, news = found[number][2]}
      total = total + count
    end
  end
end

-- Divides the room among the responses if it does not suffice for all new tokens: core's shares().
local function share(left)
  local by_count = {}
  for place, log in ipairs(fresh) do
    by_count[place] = log
  end
  table.sort(by_count, function(left_log, right_log)
    return left_log.count < right_log.count or left_log.count == right_log.count and left_log.place < right_log.place
  end)
  for done, log in ipairs(by_count) do
    log.given = math.min(log.count, math.floor(left / (#by_count - done + 1)))
    left = left - log.given
  end
end

local left = math.floor(math.max(args[2] - half + room, half) / ITEM_BYTES)
if total > left then
  share(left)
end

for _, log in ipairs(fresh) do
  if log.given > 0 then
    local news, first = log.news, log.position * ITEM_BYTES
    news[#news + 1] = log.index
    news[#news + 1] = log.position
    news[#news + 1] = call('GETRANGE', log.key, first, first + log.given * ITEM_BYTES - 1)
  end
end

local replies = {}
for _, group in ipairs(found) do
  if group[2][1] or group[3] then
    replies[#replies + 1] = group
  end
end
return replies
