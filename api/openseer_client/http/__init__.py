"""HTTP of the clients: calls as values, the exchange of a call, flows of several calls, retries.

Read `calls`, `caller_span`, `flows`, `exchange`, `retry`. Tests: tests/client.
"""
