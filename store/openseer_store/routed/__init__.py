"""Routed experts, stored in files beside Redis: workers append rows to files, and readers assemble a result's rows.

Read `records` (one file), `places` (the folders), `assembly` (a result's rows), `folders` and `removal` (reading and
removing rows), `asking` (rows over HTTP, for readers without the folder), `npy` (numpy's file format).
Nothing here imports numpy. Tests: tests/store/routed.
"""
