"""Checks that a run kept every guarantee, by comparing its results with its store's journal.

Read `run`, `audit`, `rules`. Tests: tests/driver/audit.
"""
