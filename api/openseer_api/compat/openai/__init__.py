"""OpenAI's routes: completions and chat.

Read `wire`, `routes`, `rendering`. Tests: tests/api/compat/test_openai.py.
"""
