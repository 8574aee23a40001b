"""The JSON that trainer and openseer exchange over HTTP; client and server share these classes.

Read `batches`, `fleet`, `weights`, `problem`. Tests: tests/api and tests/client; tests/contract holds the forms.
"""
