-- Purpose    Returns requests to the queue with their tokens. With `lost`, each lease counts as lost to a death.
-- Guarantee  Only a write with the holder's fence is accepted. A repeat changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {lost, list of {request, fence, offset}}
-- ARGV[3…]   tokens and log-probabilities of each request, alternating
-- Returns    list of {outcome, have}

tick()
local args, replies = unpack_row(ARGV[2]), {}
for number, delta in ipairs(args[2]) do
  local request = request_of(delta[1])
  local outcome = check(request, delta[2], delta[3])
  if outcome == 'ok' and request.state == 'leased' then
    append(request, delta[3], ARGV[1 + 2 * number], ARGV[2 + 2 * number])
    if args[1] then
      lose(request, max_losses, true)
    else
      absolve(request)
      end_lease(request, 'give_back')
    end
  end
  replies[number] = {outcome, outcome == 'lost' and 0 or request.generated}
end
flush()
return replies
