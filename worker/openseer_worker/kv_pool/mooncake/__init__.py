"""The KV pool in Mooncake's store: a master that stores the blocks' locations, and a process with their memory.

Read `installed` (checks the machine), `client` (blocks in the store), `watching` (the store's usage, and removal),
`servers` (starts, watches and restarts master and store), `main` (runs the servers in a pod).
Nothing here imports vLLM or torch. Tests: tests/worker/kv_pool/mooncake.
"""
