"""What a trainer's own traces are told of a job, as spans: pure arithmetic over results, batches and transactions.

Read `traceparent`, `span`, then `of_requests` and `of_weights`. Tests: tests/core/traces.
"""
