"""The weights that a worker serves: their files, and the steps of a transaction.

Read `served`, `folders`, `fetching`, `hashing`, `files`. Tests: tests/worker/weights.
"""
