"""What the processes of a pod share: how they answer probes and scrapes, and how they report why they end.

Read `termination`, `pod_http`. Tests: tests/process.
"""
