-- Purpose    Reads the fleet spec, and what the next revision has to be above.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {}
-- Returns    {the fleet spec (JSON) or "", base}

return {call('HGET', P .. ':orders', 'orders') or '', issue(0) - 1}
