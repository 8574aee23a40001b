"""One served job: its context, uploads, checks, metrics and traces.

Read `context`, `upload` (queues groups), `sampling`, `history`, `target`, `fleet_changes`, then `drafting`, `rows`,
`traces` and `metrics`. Tests: tests/api/job.
"""
