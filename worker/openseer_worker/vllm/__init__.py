"""The vLLM engine: the only folder, beside gpu_bench, that imports vllm.

Read `environment` (variables to set before vLLM is imported), `arguments`, `configuration`, `building`, `engine`,
`engine_calls`, `outputs`, `profile`; `drafting/`, `kv_pool/`, `routing/`; `weight_loading`, `receiving/`, `adapters`,
`gang`; `model_limits`. `extension`, `kv_groups` and `cpu` run inside vLLM's own workers. Tests: tests/worker/vllm.
"""
