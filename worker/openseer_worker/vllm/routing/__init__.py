"""vLLM's side of routed experts: captured by the proposer of drafts, and returned with the tokens that they computed.

Read `capture` (in vLLM's process, after each step), `extension` (its methods), `link` (the engine's side), `shape`.
Tests: tests/worker/vllm/routing.
"""
