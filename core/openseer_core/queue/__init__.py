"""The queue of requests: what waits, in which order, for how long it runs, and the messages about it.

Read `states`, `group`, `policy` and `length_estimate` (the order), `placement` (from a prompt to a group),
`kv_blocks` and `quantum` (what fits and what goes on), then `messages`, `batch` and `siblings` (what crosses between
worker and store). Tests: tests/core/queue.
"""
