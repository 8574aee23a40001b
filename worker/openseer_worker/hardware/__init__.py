"""The GPUs of a worker: which it has, how they are, and how long they were used.

Read `devices`, `nvml`, `telemetry`, `sickness`, `usage`. Tests: tests/worker/hardware.
"""
