"""vLLM's side of a KV pool: its arguments by backend, and the connector, which is the same for all.

Read `arguments` (vLLM's settings), `connector` (called by vLLM), `steps` (messages from the scheduler's side to the
worker's), `lookups` (the scheduler's side), `transfers` (the worker's side), `block_tensors` (blocks in vLLM's KV
cache), `counts`. Tests: tests/worker/vllm/kv_pool.
"""
