"""A run measured: its metrics (report.json) and its page (report.html).

Read `failures`, `trace`, `pace`, `drafting`, `report`, then `html` and the charts. Tests: tests/driver/report.
"""
