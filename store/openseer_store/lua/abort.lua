-- Purpose    Ends every unfinished request of some groups of a batch as aborted.
-- Guarantee  Partial tokens are kept; each request gets one result. Bounded: the caller goes on from group to group.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, first group, last group} (places in the order of submission, both included)
-- Returns    {groups looked at, requests ended}

local args = unpack_row(ARGV[2])
local gids = call('LRANGE', P .. ':batch:' .. args[1] .. ':groups', args[2], args[3])
local count = 0
for _, gid in ipairs(gids) do
  for index = 0, group_of(gid).size - 1 do
    local request = load_request(gid, index)
    if request.state == 'queued' or request.state == 'leased' then
      close(request, 'abort', 'aborted', 'aborted', '')
      count = count + 1
    end
  end
end
flush()
return {#gids, count}
