"""Reads a batch job's prompts in a stream, from files and folders of several formats.

Read `source`, then `formats`, `folders`, `rows` and `fetch`. Tests: tests/driver/prompts.
"""
