"""The GPUs of a worker: their assignment, their health, and the time that they were used.

Read `devices`, `nvml`, `telemetry`, `sickness`, `usage`. Tests: tests/worker/hardware.
"""
