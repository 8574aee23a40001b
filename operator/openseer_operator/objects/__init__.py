"""The Kubernetes objects of a job: pure functions that render them from openseer's values, and parse them.

Read `names`, `reading`, `pods` with `pod_parts` and `overlay`, `shared`, `managed_redis`, `status` with `conditions`
and `status_parts`. Tests: tests/operator/objects.
"""
