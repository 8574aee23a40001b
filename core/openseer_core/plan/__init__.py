"""The operator's decisions for a job: a pure function of an observation and a memory.

Read `observation` (input), `actions` (output), `plan`, and its parts `workers`, `failures`, `revival`, `scaling`,
`autoscale` with `backlog`, and `store`. Tests: tests/core/plan; its transcripts show examples.
"""
