"""The store of a job's queue and tokens: ports, the in-process store and the Redis store.

Read `port` (the verbs), `memory`, `keys` (the key space), `redis_store` and `redis_reading` with lua/ (a script per
verb), `codec` and `replies`, `redis_link`, `recent_writes`, `redis_pool`, `redis_url`, `redis_dial` and `reply_limit`,
`connect`, `embedded` and `launcher`; then routed/ (files of routed experts). Tests: tests/store; tests/contract
compares the stored forms with samples.
"""
