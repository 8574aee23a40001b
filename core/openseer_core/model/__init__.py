"""The reference model of the queue: each verb of the store in plain Python; the Redis store must behave the same.

Read `state`, `request_queue` (one worker's verbs), `claiming`, `claimers`, `waiting_counts`, `losses`, `job_queue` (a
trainer's batches), `job_clock`, `accounting` (counts, results, journal), `earlier_responses`, `sorted_set`. The
in-process store runs it, the Redis store is tested against it.
Tests: tests/core/model, and tests/store/test_same_as_reference.py.
"""
