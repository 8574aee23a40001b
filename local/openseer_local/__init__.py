"""The command `openseer`: runs and serves RolloutJobs on one machine, and calls the API of served jobs.

Read `main`, `manifest_yaml`, `job_checks`, `model_limits`, `validation`, `session` (shared by run and serve), `run`,
`serve`, `fleet` (workers as processes), `page`, `remote`, `bearer`, `compare`, `explained`, `simulated`, `bench`,
`terminal`. Tests: tests/local, tests/e2e.
"""
