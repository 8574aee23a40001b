"""The report of a run: its metrics (report.json) and its page (report.html).

Read `failures`, `trace`, `pace`, `drafting`, `routed`, `report`, then `html` and the charts.
Tests: tests/driver/report.
"""
