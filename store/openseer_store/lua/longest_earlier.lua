-- Purpose    Reads the length of the longest stored response to each prompt.
-- Guarantee  Changes nothing.
-- KEYS[1]    the job's prefix
-- ARGV[2]    list of digests
-- Returns    the lengths in tokens, in the order of the digests; 0 if no response is stored

local longest = {}
for number, digest in ipairs(unpack_row(ARGV[2])) do
  longest[number] = 0
  for _, length in ipairs(call('LRANGE', P .. ':earlier_lengths:' .. digest, 0, -1)) do
    longest[number] = math.max(longest[number], tonumber(length))
  end
end
return longest
