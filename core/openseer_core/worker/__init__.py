"""What a worker reports of itself, and whether it drafts.

Read `heartbeat`, `metrics`, `draft_metrics`, `context_metrics`, `time_metrics`, `speculation_enabled`.
Tests: tests/core/worker.
"""
