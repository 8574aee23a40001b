"""The driver: feeds prompts, writes results, proves and reports the run.

Read `prompts`, `submission`, `spool`, `driver`, `session` (one session of a run), `run_folder`, `folder_lock` and
`run_lines` (its files), `sampler`; in a cluster `main`, `pod_run`, `pod_metrics`; then `audit`, `report` and
`explain`. Tests: tests/driver.
"""

from importlib.metadata import version

VERSION = version("openseer")
