"""The vLLM engine: the only folder, beside gpu_bench, that imports vllm.

Read `environment` (variables to set before vLLM is imported), `arguments`, `configuration`, `building`, `engine`,
`engine_calls`, `outputs`, `profile`; `drafting/`; `weight_loading`, `adapters`, `gang`; `extension`, `kv_groups` and
`cpu` run inside vLLM's own workers. Tests: tests/worker/vllm.
"""
