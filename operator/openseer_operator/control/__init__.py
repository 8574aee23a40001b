"""The control loop: observe → plan → apply, for each job when something changed.

Read `loop`, `reconcile`, `observe`, `apply`, `stores`, `handlers`, then `metrics` and `health`. Tests:
tests/operator/control.
"""
