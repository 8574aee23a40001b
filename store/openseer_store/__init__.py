"""The store of a job's queue and tokens: ports, the in-process store and the Redis store.

Read `port` (the verbs), `memory`, `keys` (the key space), `redis_store` and lua/ (a script per verb), `codec` and
`replies`, `redis_link`, `redis_pool`, `redis_url`, `redis_dial` and `reply_limit`, `connect`, `embedded`. Tests:
tests/store; tests/contract holds the stored forms.
"""
