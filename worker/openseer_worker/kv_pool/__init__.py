"""The KV pool of a job: its blocks, their places in a shared directory or in Mooncake's store, and their removal.

Read `block_store` (the interface of a backend), `backends` (their list), `blocks` (the format of a block), `places`
(names of folders and keys), `directory`, `mooncake`, `breaker` (pauses the use of a failing pool), `rates` (avoids
fetches from a slow pool), `daemons` (threads that may hang), `sweeps` (which worker sweeps a folder, and whether any
does), `free_space`, `removal` (the order of removal), `sweepers`, `keeper` (a worker's part). vLLM's side is in
`openseer_worker.vllm.kv_pool`. Nothing here imports vLLM or torch.
Tests: tests/worker/kv_pool.
"""
