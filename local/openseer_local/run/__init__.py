"""`openseer run`: a batch job on this machine.

Read `runner`, `progress`. Tests: tests/local/run and tests/e2e/test_local_run.py.
"""
