"""The live page: what a person looks at in a browser, of one job or of all.

Read `book` (what a journal tells), `lanes`, `job_views`, `batch_views`, `group_views` (from facts to what the page is
sent, core's `wire.page`), `feed` and `group_feed` (they ask the store; the former once for all viewers), `cards` (all
jobs at a glance), `routes`, `assets` (the built files in `static`, whose sources are the top-level folder page).
Tests: tests/api/page.
"""
