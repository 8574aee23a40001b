"""Drafts in the vLLM engine.

Read `link` (the engine's side), `calls` and `extension` (from there into vLLM's processes), `proposer` (what vLLM calls
after each step), `prompt_scores` (given tokens that are scored), `scheduler`, `step_profile` and `step_probe` (what
verifying costs), `no_gain` (where drafts were found not to pay). Tests: tests/worker/vllm.
"""
