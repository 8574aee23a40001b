"""vLLM's own generate route.

Read `generate`. Tests: tests/api/compat/test_engines.py.
"""
