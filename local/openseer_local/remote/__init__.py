"""Commands that call the API of a served job: batches, fleet, weights.

Read `connection`, `batches`, `upload`, `sending`, `results_file`, `fleet`, `explaining`, `displays`. Tests:
tests/local/remote and tests/e2e/test_serve.py.
"""
