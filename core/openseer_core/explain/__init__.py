"""Divides workers' time by use and finds causes of lost time, for ended runs and for running jobs.

Read `parts`, `counters`, `paces`, then `findings`. Tests: tests/driver/explain, tests/api/page/test_account.py.
"""
