"""The weights that a worker serves: their files, and the steps of a transaction.

Read `served`, `folders`, `temporary`, `fetching`, `peers`, `passing`, `hashing`, `files`,
`adapter_files`, `scores`.
Tests: tests/worker/weights.
"""
