"""The control loop: observe → plan → apply, for each job when something changed.

Read `loop`, `reconcile`, `observe`, `templates`, `apply`, `store_poller`, `store_views`, `read_slots`, `watch`, then
`counters`, `metrics` and `health`. Tests: tests/operator/control.
"""
