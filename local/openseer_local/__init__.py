"""A RolloutJob on one machine: the command `openseer`.

Read `main`, `run`, `serve`, `fleet` (workers as processes), `remote`, `terminal`. Tests: tests/local, tests/e2e.
"""
