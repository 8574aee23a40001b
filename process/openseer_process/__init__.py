"""What the processes of pods share: how they answer probes and scrapes, how they report why they end, and which stores
those outside of a job's namespace may use.

Read `termination`, `parent`, `metric_table` (every metric there is), `families`, `pod_http`, `store_hosts`,
`store_access`, `job_file`. Tests: tests/process.
"""
