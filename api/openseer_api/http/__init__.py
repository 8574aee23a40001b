"""The parts that all routes share: authorization, limits of a call, and the rendering of errors and results.

Read `auth`, `gate` (before all routes), `bodies`, `problems`, `rendering`, `shutdown`, `call_counts`,
`server`. Tests: tests/api/http.
"""
