"""The KV pool of a job: its blocks, their places in a shared directory or in Mooncake's store, and their removal.

Read `block_store` (the interface of a backend), `backends` (their list), `blocks` (the format of a block), `places`
(names of folders and keys), `directory`, `mooncake`, `breaker` (pauses the use of a failing pool), `rates` (and of a
slow one), `daemons` (threads that may hang), `sweeps` (one worker sweeps at a time, and at least one does),
`free_space`, `removal` (the order of removal), `sweepers`, `keeper` (a worker's part). vLLM's side is in
`openseer_worker.vllm.kv_pool`. Nothing here imports vLLM or torch.
Tests: tests/worker/kv_pool.
"""
