"""The reference model of the queue: each verb of the store in plain Python. The Redis store must behave the same.

Read `state`, `request_queue` (a worker's verbs), `claiming`, `claimers`, `waiting_counts`, `suspects`, `losses`,
`job_queue` (a trainer's batches), `job_clock`, `accounting` (counts, results, journal), `earlier_responses`,
`sorted_set`. The in-process store runs the model; tests compare the Redis store with it.
Tests: tests/core/model, and tests/store/test_same_as_reference.py.
"""
