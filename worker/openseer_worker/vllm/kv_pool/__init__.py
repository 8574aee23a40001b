"""vLLM's side of a KV pool: its arguments by backend, and the connector, which is the same for all.

Read `arguments` (what vLLM is told), `connector` (what it calls), `steps` (what the scheduler's side tells the
worker's), `lookups` (the scheduler's side), `transfers` (the worker's side), `block_tensors` (blocks in vLLM's KV
cache), `counts`. Tests: tests/worker/vllm/kv_pool.
"""
