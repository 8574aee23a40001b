-- Purpose    Reads the number of stored tokens of each request.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    list of requests
-- Returns    the numbers, in the order of the requests; 0 if there are no tokens

local lengths = {}
for number, rid in ipairs(unpack_row(ARGV[2])) do
  lengths[number] = call('STRLEN', P .. ':tokens:' .. rid) / ITEM_BYTES
end
return lengths
