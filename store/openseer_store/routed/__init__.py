"""Routed experts beside Redis: files of rows that workers append to, and the assembly of a result's rows.

Read `records` (one file), `places` (the folders), `assembly` (a result's rows), `folders` and `removal` (reading and
removing rows), `asking` (rows over HTTP, for readers without the folder), `npy`.
Nothing here imports numpy. Tests: tests/store/routed.
"""
