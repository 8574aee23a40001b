"""Where the time of a run went, and what to do about it: core's arithmetic over what its folder holds.

Read core's `explain`, then `explanation` (what comes of it), `real_time`, `presence`, `waiting`, `evidence`,
`findings` and `explained`. Tests: tests/driver/explain.
"""
