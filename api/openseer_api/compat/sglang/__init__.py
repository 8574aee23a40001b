"""SGLang's own generate route.

Read `wire`, `generate`. Tests: tests/api/compat/test_engines.py.
"""
