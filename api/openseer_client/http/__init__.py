"""How the clients speak HTTP: calls as values, one exchange for each, retries.

Read `calls`, `flows`, `exchange`, `retry`. Tests: tests/client.
"""
