"""Drafts in the vLLM engine.

Read `link` (the engine's side), `calls` and `extension` (calls from the engine into vLLM's processes), `proposer` (vLLM
calls it after each step), `prompt_scores` (scores of given tokens), `scheduler`, `step_profile` and `step_probe` (the
cost of verifying), `no_gain` (records that drafts do not pay). Tests: tests/worker/vllm.
"""
