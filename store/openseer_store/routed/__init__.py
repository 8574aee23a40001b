"""Routed experts beside Redis: files of rows that workers append to, and how a result's rows are put together.

Read `records` (one file), `places` (the folders), `assembly` (a result's rows), `folders` (what is removed, and when).
Nothing here imports numpy. Tests: tests/store/routed.
"""
