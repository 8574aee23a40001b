"""vLLM's side of routed experts: the proposer of drafts captures them, and the engine returns them with its tokens.

Read `capture` (in vLLM's process, after each step), `extension` (its methods), `link` (the engine's side), `shape`.
Tests: tests/worker/vllm/routing.
"""
