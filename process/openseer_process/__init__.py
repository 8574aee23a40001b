"""What the processes of pods share: their logs, how they answer probes and scrapes, how they report why they end, how
they send spans, and which stores those outside of a job's namespace may use.

Read `logs`, `termination`, `parent`, `metric_table` (every metric there is), `families`, `pod_http`, `span_export`,
`otlp`, `store_hosts`, `store_access`, `job_file`. Tests: tests/process.
"""
