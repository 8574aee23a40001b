"""The operator: observe → plan → apply.

Read `main`, `settings`, `control` (the loop), `objects` (what it makes and reads), `kube` (how it calls the API
server); what it decides is core's `plan`. Tests: tests/operator, tests/cluster.
"""
