"""The heartbeat of a worker (state, metrics, weights), and the decision whether a worker drafts.

Read `heartbeat`, `metrics`, `draft_metrics`, `context_metrics`, `time_metrics`, `speculation_enabled`, `draft_ratios`.
Tests: tests/core/worker.
"""
