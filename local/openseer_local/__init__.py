"""The command `openseer`: runs and serves RolloutJobs on one machine, and calls the API of served jobs.

Read `main`, `manifest_yaml`, `job_checks`, `session` (shared by run and serve), `run`, `serve`, `fleet` (workers as
processes), `remote`, `bearer`, `compare`, `explained`, `bench`, `terminal`. Tests: tests/local, tests/e2e.
"""
