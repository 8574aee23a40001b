"""What crosses HTTP between a trainer and openseer: the client and the server share it.

Read `batches`, `fleet`, `weights`, `problem`. Tests: tests/api and tests/client; tests/contract holds the forms.
"""
