"""What every route shares: who may call, how large a call may be, how errors and results are written.

Read `auth`, `gate` (before all routes), `bodies`, `problems`, `rendering`, `shutdown`, `call_counts`,
`server`. Tests: tests/api/http.
"""
