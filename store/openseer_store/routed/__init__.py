"""Routed experts beside Redis: files of rows that workers append to, and how a result's rows are put together.

Read `records` (one file), `places` (the folders), `assembly` (a result's rows), `folders` and `removal` (what is read
and removed, and when), `asking` (rows over HTTP, for whoever does not see the folder), `npy`.
Nothing here imports numpy. Tests: tests/store/routed.
"""
