"""The commands' output on a terminal.

Read `console`, `display`, `tables`, `draft_cells`. Tests: tests/local.
"""
