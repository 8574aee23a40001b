"""The vLLM engine: the only folder, beside gpu_bench, that imports vllm.

Read `environment` (what must be set before vLLM is imported), `arguments`, `engine`, `engine_calls`, `outputs`,
`profile`; for drafts `draft_link`, `draft_calls`, `drafts`, `step_profile`, `step_probe`; `weight_loading`, `gang`;
`drafts`, `extension` and `cpu` run inside vLLM's own workers. Tests: tests/worker/vllm.
"""
