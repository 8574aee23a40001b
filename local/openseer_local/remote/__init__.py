"""Commands that call the API of a served job: batches, fleet, weights.

Read `connection`, `batches`, `upload`, `results_file`, `fleet`, `displays`. Tests: tests/local/remote and
tests/e2e/test_serve.py.
"""
