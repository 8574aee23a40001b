"""vLLM's side of routed experts: captured beside the proposer of drafts, handed over with the tokens that they made.

Read `capture` (in vLLM's process, after each step), `extension` (the way there), `link` (the engine's side), `shape`.
Tests: tests/worker/vllm/routing.
"""
