"""Exports a run over time: as a file of trace events for Perfetto, and as OpenTelemetry spans.

Read `leases`, `events`, `trace_file`; `batch_trace`. Tests: tests/driver/traces.
"""
