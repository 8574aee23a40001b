-- Purpose    Tells the job's time.
-- Guarantee  Also on a full server, where that time stands still.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    seconds

redis.pcall('HSET', STORE, unpack(read_clock()))
return real(now)
