"""HTTP of the clients: calls as values, one exchange per call, retries.

Read `calls`, `caller_span`, `flows`, `exchange`, `retry`. Tests: tests/client.
"""
