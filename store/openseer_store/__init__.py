"""Where the queue and the tokens of a job live: ports, the in-process store and the Redis store."""
