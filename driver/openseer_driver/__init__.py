"""The driver of a batch job: submits its prompts, writes its results, audits the run and writes its report.

Read `prompts`, `submission`, `spool`, `driver`, `session`, `sampler`; then, for the run's files, `run_folder`,
`folder_lock`, `run_lines`, `export`; for clusters `main`, `pod_run`, `pod_metrics`, `routed`, `rows_pod`; then `audit`,
`report`, `explain` and `traces`. Tests: tests/driver.
"""

from importlib.metadata import version

VERSION = version("openseer")
