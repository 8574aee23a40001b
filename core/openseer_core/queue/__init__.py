"""The queue of requests: order, admission, the quantum, and the messages between worker and store.

Read `states`, `group`, `policy` and `length_estimate` (the order), `placement` (from a prompt to a group),
`kv_blocks` and `quantum` (admission, and the decision at the end of a quantum), then `messages`, `batch` and `siblings`
(messages between worker and store). `budgets` limits the calls to the store, `store_memory` is its memory use, and
`time_left` estimates a batch's remaining time. Tests: tests/core/queue.
"""
