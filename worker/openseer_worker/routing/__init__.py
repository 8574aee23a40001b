"""A worker's part in capturing routed experts: chooses the rows of each lease, and writes them to files before their
tokens go to the store.

Read `keeper` (leases and their rows), `writer` (the files), `rows_first` (the order of both writes). Nothing here
imports vLLM or torch. Tests: tests/worker/routing.
"""
