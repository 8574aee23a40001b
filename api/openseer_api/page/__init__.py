"""The live page: shows one job, or all jobs, in a browser.

Read `book` (state from journals), `lanes`, `job_views`, `batch_views`, `group_views` (from state to the messages of
core's `wire.page`), `feed` and `group_feed` (they read the store; the former once for all viewers), `cards` (an
overview of all jobs), `routes`, `assets` (the built files in `static`, whose sources are in the top-level folder page).
Tests: tests/api/page.
"""
