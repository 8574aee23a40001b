-- Purpose    Says that a batch has all its groups.
-- Guarantee  A repeat changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch}
-- Returns    1

call('HSET', P .. ':batch:' .. int(unpack_row(ARGV[2])[1]), 'sealed', 1)
return 1
