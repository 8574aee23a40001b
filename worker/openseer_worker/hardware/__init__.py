"""The GPUs of a worker: their assignment, their health, and the time of their use.

Read `devices`, `nvml`, `telemetry`, `sickness`, `probe`, `usage`. Tests: tests/worker/hardware.
"""
