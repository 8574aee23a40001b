"""Commands that speak to a served job through the client: batches, fleet, weights.

Read `connection`, `batches`, `upload`, `results_file`, `fleet`, `displays`. Tests: tests/local/remote and
tests/e2e/test_serve.py.
"""
