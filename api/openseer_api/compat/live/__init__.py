"""What the compatible routes share: requests that come one by one become groups of live batches.

Read `members`, `groups`, `batch`, `requests`, `serving`; `sampling` and `refusals` say what is taken; `orphans`
clears up after processes that died. Tests: tests/api/compat.
"""
