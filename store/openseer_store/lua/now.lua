-- Purpose    Reads the time of the job's clock.
-- Guarantee  Also works on a full server, but does not advance the clock there.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    the time, in seconds

redis.pcall('HSET', STORE, unpack(read_clock()))
return real(now)
