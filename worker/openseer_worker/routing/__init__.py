"""A worker's part in capturing routed experts: chooses the rows of each lease, and writes the rows to files before the
store receives their tokens.

Read `keeper` (leases and their rows), `writer` (the files), `rows_first` (the order of both writes). Nothing here
imports vLLM or torch. Tests: tests/worker/routing.
"""
