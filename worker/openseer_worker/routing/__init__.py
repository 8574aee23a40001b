"""A worker's part in routed experts: which rows are wanted of a lease, and that they are on file before its tokens are
in the store.

Read `keeper` (leases and their rows), `writer` (the files), `rows_first` (the order of both writes). Nothing here
imports vLLM or torch. Tests: tests/worker/routing.
"""
