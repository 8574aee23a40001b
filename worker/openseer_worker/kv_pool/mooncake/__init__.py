"""The KV pool in Mooncake's store: a master that knows where blocks are, and a process that holds them in memory.

Read `installed` (what must be on the machine), `client` (blocks in the store), `watching` (how full it is, what is
removed), `servers` (master and store: started, watched, started again), `main` (the same as a pod).
Nothing here imports vLLM or torch. Tests: tests/worker/kv_pool/mooncake.
"""
