"""One served job: its context, uploads, checks, metrics and traces.

Read `context`, `upload` (groups into the queue), `sampling`, `history`, `target`, `fleet_changes`, then `drafting`,
`traces` and `metrics`. Tests: tests/api/job.
"""
