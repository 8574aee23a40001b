"""Where the queue and the tokens of a job live: ports, the in-process store and the Redis store.

Read `port` (the verbs), `memory`, `keys` (the key space), `redis_store` and lua/ (a script per verb), `codec`,
`redis_link` and `redis_pool`, `connect`, `embedded`. Tests: tests/store; tests/contract holds the stored forms.
"""
