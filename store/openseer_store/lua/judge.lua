-- Purpose    Notes which groups of a batch are valid.
-- Guarantee  The latest verdict counts; unknown groups are skipped.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {batch, list of {name, valid}}
-- Returns    how many groups are known

local args = unpack_row(ARGV[2])
local key, known = P .. ':batch:' .. int(args[1]), 0
local kinds = {['1'] = 'valid', ['0'] = 'invalid'}
for _, row in ipairs(args[2]) do
  if call('EXISTS', P .. ':group:' .. int(args[1]) .. '/' .. row[1]) == 1 then
    local earlier, verdict = call('HGET', key .. ':verdicts', row[1]), row[2] and '1' or '0'
    if earlier then
      bump(key, kinds[earlier], -1)
    end
    bump(key, kinds[verdict], 1)
    call('HSET', key .. ':verdicts', row[1], verdict)
    known = known + 1
  end
end
flush()
return known
