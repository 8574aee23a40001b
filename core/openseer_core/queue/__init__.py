"""The queue of requests: order, admission, the quantum, and the messages between worker and store.

Read `states`, `group`, `policy` and `length_estimate` (the order), `placement` (which builds a group from a prompt),
`kv_blocks` and `quantum` (admission, and the decision at the end of a quantum), then `messages`, `batch` and `siblings`
(messages between worker and store). `budgets` limits the work of one call to the store, `store_memory` holds the
store's memory use, and `time_left` estimates a batch's remaining time. Tests: tests/core/queue.
"""
