"""Spans of a job for a trainer's traces: pure functions of results, batches and weights transactions.

Read `traceparent`, `span`, then `of_requests` and `of_weights`. Tests: tests/core/traces.
"""
