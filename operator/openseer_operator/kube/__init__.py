"""The operator's access to the Kubernetes API: calls, caches, events, the leader's lease.

Read `api` with `clock`, `cache`, `census`, `owned_objects`, `events`, `store_volume`, `volume_safety`, `node_repair`,
`lease`, `rate_limiter`. Tests: tests/operator/kube.
"""
