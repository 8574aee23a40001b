-- Purpose    Reads the job's time.
-- Guarantee  Works on a full server too, where that time does not advance.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    seconds

redis.pcall('HSET', STORE, unpack(read_clock()))
return real(now)
