"""The control loop: observe → plan → apply, for each job whose objects or store have changed.

Read `reconcile` (one step, with an example), `loop` (when each job has one), `observe`, `templates`, `slow_starts`,
`apply`, `store_poller`, `store_views`, `read_slots`, `watch`, then `counters`, `metrics` and `health`. Tests:
tests/operator/control.
"""
