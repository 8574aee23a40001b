-- Purpose    Notices that the server is another process than the one that issued the last fences.
-- Guarantee  Runs on every new connection before any verb: each process of the server has an epoch of its own, so a
--            server that lost its last second issues no fence twice.
-- KEYS[1]    the job's prefix
-- ARGV[2]    {run_id of the server}
-- Returns    the epoch

local run_id = unpack_row(ARGV[2])[1]
call('PERSIST', P .. ':store')  -- a job of this name was forgotten, and here is another one
if call('HGET', P .. ':store', 'run_id') == run_id then
  return call('HGET', P .. ':store', 'epoch')
end
call('HSET', P .. ':store', 'run_id', run_id)
return call('HINCRBY', P .. ':store', 'epoch', 1)
