"""The KV pool of a job: blocks, where they lie in a shared directory or in Mooncake's store, and what is removed.

Read `block_store` (what a backend does), `backends` (which there are), `blocks` (one block), `places` (where they lie),
`directory`, `mooncake`, `breaker` (a pool that fails is left alone for a while), `rates` (a
slow one, too), `daemons` (threads that may hang), `sweeps` (who looks through a pool, and that somebody does),
`free_space`, `removal` (what goes), `sweepers`, `keeper` (when). vLLM's side is in `openseer_worker.vllm.kv_pool`.
Nothing here imports vLLM or torch.
Tests: tests/worker/kv_pool.
"""
