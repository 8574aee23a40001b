"""The counters of contexts that an engine took up, by the names that heartbeats carry them under."""

CONTEXT_COUNTERS = (
    "computed_tokens",
    "cached_tokens",
    "fetched_tokens",
    "recomputed_tokens",
    "pool_loaded_bytes",
    "pool_load_seconds",
    "pool_failed_loads",
    "pool_saved_bytes",
    "pool_unsaved_blocks",
)
"""They only grow while a worker lives. A context is what a request has when an engine takes it up: its prompt, and its
response so far. Of its tokens some are found in the engine's own cache, some are fetched from the KV pool, and the rest
is computed; `recomputed_tokens`: computed, of requests that had been running before. Bytes and seconds are of the pool;
`pool_failed_loads`: fetches that brought less than was found; `pool_unsaved_blocks`: blocks that the pool did not take.
"""
