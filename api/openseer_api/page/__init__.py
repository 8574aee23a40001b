"""The live page: shows one job, or all jobs, in a browser.

Read `book` (computes state from journals), `account` (the workers' time), `lanes`, `job_views`, `batch_views`,
`group_views` (convert state to the messages of core's `wire.page`), `feed` (reads the store once for all viewers),
`group_feed` (reads it for one viewer), `cards` (an overview of all jobs), `shown`, `routes`, `app` (the page without
the API), `assets` (the built files in `static`, whose sources are in the top-level folder page). Tests: tests/api/page.
"""
