"""vLLM's own routes: generate, and the conversion between text and tokens.

Read `generate`, `tokens`. Tests: tests/api/compat/test_engines.py.
"""
