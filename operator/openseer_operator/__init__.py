"""The operator: observe → plan → apply.

Read `main`, `settings` with `pod_settings`, `control` (the loop; `control.reconcile` explains a reconcile step),
`objects` (the objects that it makes and reads), `kube` (its calls of the API server); core's `plan` decides.
`uninstall` is a separate process. Tests: tests/operator, tests/cluster.
"""
