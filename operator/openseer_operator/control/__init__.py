"""The control loop: observe → plan → apply, for each job when something changed.

Read `loop`, `reconcile`, `observe`, `apply`, `store_poller`, `watch`, then `metrics` and `health`. Tests:
tests/operator/control.
"""
