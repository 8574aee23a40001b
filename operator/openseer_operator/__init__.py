"""The operator: observe → plan → apply.

Read `main`, `settings` with `pod_settings`, `control` (the loop; `control.reconcile` explains a reconcile step),
`objects` (the Kubernetes objects of a job), `kube` (the calls of the API server). The decisions are in core's `plan`.
`uninstall` is a separate process. Tests: tests/operator, tests/cluster.
"""
