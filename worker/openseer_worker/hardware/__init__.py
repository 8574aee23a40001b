"""The GPUs of a worker: which it has, how they are, and how long they were used.

Read `devices`, `telemetry`, `usage`. Tests: tests/worker/hardware.
"""
