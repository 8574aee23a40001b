"""The operator's access to the Kubernetes API: calls, caches, events, the leader's lease.

Read `api`, `cache`, `census`, `events`, `lease`, `rate_limiter`. Tests: tests/operator/kube.
"""
