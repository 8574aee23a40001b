"""Whether a run kept every guarantee, from its store's journal and its results.

Read `run`, `audit`, `rules`. Tests: tests/driver/audit.
"""
