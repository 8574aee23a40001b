"""The driver of a batch job: submits its prompts, writes its results, audits the run and writes its report.

Read `prompts`, `submission`, `spool`, `driver`, `session` (one session of a run), `run_folder`, `folder_lock`,
`run_lines` (its files) and `export` (as a table), `sampler`; in a cluster `main`, `pod_run`, `pod_metrics`; then
`audit`, `report` and `explain`. Tests: tests/driver.
"""

from importlib.metadata import version

VERSION = version("openseer")
