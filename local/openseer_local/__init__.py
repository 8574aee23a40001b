"""A RolloutJob on one machine: the command `openseer`.

Read `main`, `manifest_yaml`, `job_checks`, `session` (what run and serve share), `run`, `serve`, `fleet` (workers as
processes), `remote`, `bearer`, `compare`, `explained`, `bench`, `terminal`. Tests: tests/local, tests/e2e.
"""
