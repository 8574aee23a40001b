"""What every route shares: who may call, how large a call may be, how errors and results are written.

Read `auth`, `limits`, `problems`, `rendering`, `shutdown`. Tests: tests/api/http.
"""
