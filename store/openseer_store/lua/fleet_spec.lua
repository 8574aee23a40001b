-- Purpose    Reads the fleet spec, and the number that the next revision has to exceed.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    {the fleet spec (JSON) or "", its revision, base}

local row = call('HMGET', P .. ':orders', 'orders', 'revision')
return {row[1] or '', tonumber(row[2] or 0), issue(0) - 1}
