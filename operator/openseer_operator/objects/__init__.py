"""Renders and parses the Kubernetes objects of a job: pure functions between openseer's values and API objects.

Read `names`, `reading`, `pods` with `pod_parts` and `overlay`, `shared`, `managed_redis`, `status` with `conditions`
and `status_parts`. Tests: tests/operator/objects.
"""
