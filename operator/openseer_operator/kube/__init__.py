"""The operator's access to the Kubernetes API: client, caches, events, leader election.

Read `api` with `clock`, `cache`, `census`, `owned_objects`, `events`, `store_volume`, `volume_safety`, `node_repair`,
`lease`, `rate_limiter`. Tests: tests/operator/kube.
"""
