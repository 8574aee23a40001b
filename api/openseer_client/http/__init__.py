"""How the clients speak HTTP: calls as values, one exchange for each, retries.

Read `calls`, `caller_span`, `flows`, `exchange`, `retry`. Tests: tests/client.
"""
