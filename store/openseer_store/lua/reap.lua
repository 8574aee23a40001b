-- Purpose    Takes back leases past their deadline, or all leases; at most 64 per call.
-- Guarantee  Tokens are kept. A request that lost more than max_losses leases to deaths, or more than 16 to deaths and
--            expiries together, is reported as infra_failed.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {max_losses, everything}
-- Returns    the number of leases taken back

tick()
local args = unpack_row(ARGV[2])
return reap(args[1], args[2])
