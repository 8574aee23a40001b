"""A run over time: as a trace file, events that Perfetto shows, and as spans for the traces of others.

Read `leases`, `events`, `trace_file`; `batch_trace`. Tests: tests/driver/traces.
"""
