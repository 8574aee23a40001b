"""Where workers' time goes, and what stands out: arithmetic that an ended run and a job that goes on have in common.

Read `parts`, `counters`, `paces`, then `findings`. Tests: tests/driver/explain, tests/api/page/test_account.py.
"""
