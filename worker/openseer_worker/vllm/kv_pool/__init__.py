"""vLLM's side of a KV pool: vLLM's arguments by backend, and the connector, which all backends share.

Read `arguments` (vLLM's settings), `connector` (called by vLLM), `steps` (messages from the scheduler's side to the
worker's side), `lookups` (the scheduler's side), `transfers` (the worker's side), `block_tensors` (blocks in vLLM's KV
cache), `counts`, `metrics`. Tests: tests/worker/vllm/kv_pool.
"""
