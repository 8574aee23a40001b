-- Purpose    Takes back leases past their deadline, or all of them; at most 64 per call.
-- Guarantee  Tokens are kept; a request that lost more than max_losses leases is reported as infra_failed.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {max_losses, everything}
-- Returns    the number of leases

tick()
local args = unpack_row(ARGV[2])
return reap(args[1], args[2])
