"""A run over time as a trace file: events that Perfetto shows.

Read `leases`, `events`, then `trace_file`. Tests: tests/driver/traces.
"""
