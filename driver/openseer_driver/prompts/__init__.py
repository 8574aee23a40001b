"""Where a batch job's prompts come from: files and folders of several formats, read in a stream.

Read `source`, then `formats`, `folders`, `rows` and `fetch`. Tests: tests/driver/prompts.
"""
