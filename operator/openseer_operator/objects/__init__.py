"""Kubernetes objects of a job, made and read: pure functions between openseer's values and API objects.

Read `names`, `reading`, `pods`, `overlay`, `shared`, `status`. Tests: tests/operator/objects.
"""
