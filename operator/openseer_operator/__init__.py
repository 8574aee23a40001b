"""The operator: observe → plan → apply.

Read `main`, `settings` with `pod_settings`, `control` (the loop), `objects` (what it makes and reads), `kube` (how it
calls the API server); what it decides is core's `plan`. `uninstall` is a process of its own. Tests: tests/operator,
tests/cluster.
"""
