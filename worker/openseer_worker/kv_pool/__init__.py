"""The KV pool of a job as a shared directory: block files, where they lie, and who keeps them within their bytes.

Read `blocks` (one file), `places` (the folders), `breaker` (a pool that fails is left alone for a while), `rates` (a
slow one, too), `daemons` (threads that may hang), `sweeps` (who looks through a pool, and that somebody does),
`free_space`, `removal` (what goes), `keeper` (when). vLLM's side is in `openseer_worker.vllm.kv_pool`. Nothing here
imports vLLM or torch.
Tests: tests/worker/kv_pool.
"""
