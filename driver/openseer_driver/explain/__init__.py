"""Explains the time of a run, with advice: applies core's `explain` to the run's folder.

Read core's `explain`, then `explanation` (the result), `real_time`, `presence`, `waiting`, `evidence`,
`findings` and `explained`. Tests: tests/driver/explain.
"""
