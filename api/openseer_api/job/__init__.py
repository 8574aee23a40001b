"""One served job as the routes work with it.

Read `context`, `upload` (groups into the queue), `sampling`, `history`, `target`, `fleet_changes`, then `drafting`,
`traces` and `metrics`. Tests: tests/api/job.
"""
