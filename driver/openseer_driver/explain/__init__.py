"""Where the time of a run went, and what to do about it: arithmetic over what its folder holds.

Read `explanation` (what comes of it), `real_time`, `presence`, `parts`, `paces`, `evidence`, `findings`, then
`explained`. Tests: tests/driver/explain.
"""
