"""Messages that users meet first, provoked by the mistakes that cause them.

Read `commands` (mistakes in a manifest, in prompts and on the command line), `calls` (in a trainer's calls).
Their table is docs/errors.md. Tests: tests/contract/test_messages.py.
"""
