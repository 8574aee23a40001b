"""`openseer serve`: a serving job on this machine.

Read `plan`, `serving`, `display`. Tests: tests/local/serve and tests/e2e/test_serve.py.
"""
