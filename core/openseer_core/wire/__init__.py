"""The JSON that trainer and openseer exchange over HTTP; client and server share these classes.

Read `batches`, `results`, `routed`, `weights`, `fleet`, `problem`; `page` is for the live page. Tests: tests/api and
tests/client; tests/contract compares the JSON with stored samples.
"""
