"""Code that the processes of pods share: logs, probes and metrics over HTTP, termination messages, export of spans, and
the rules by which the operator and the gateway reach jobs' stores.

Read `logs`, `termination`, `parent`, `metric_table` (all metrics), `families`, `pod_http`, `span_export`,
`otlp`, `store_hosts`, `store_access`, `job_file`. Tests: tests/process.
"""
