-- Purpose    Says how many tokens are held of each request.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    list of requests
-- Returns    tokens of each, in the order of the requests; 0 where none are held

local lengths = {}
for number, rid in ipairs(unpack_row(ARGV[2])) do
  lengths[number] = call('STRLEN', P .. ':tokens:' .. rid) / ITEM_BYTES
end
return lengths
