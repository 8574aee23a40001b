"""Writes the chart of a run's chunks over time as an SVG of its own: the plot of a run in README.md.

python docs/images/timeline.py runs/arithmetic docs/images/timeline.svg
"""

import argparse
from pathlib import Path

from openseer_driver.report.charts import timeline
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder

THEME = """<style>
:root{--ink:#1c2126;--muted:#68717b;--grid:#e3e6ea;--paper:#ffffff;--sans:system-ui,"Segoe UI","DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){:root{--ink:#d7dce2;--muted:#97a0aa;--grid:#2b3137;--paper:#0d1117}}
</style>"""
"""The report's colours (driver/openseer_driver/templates), light and dark."""


def main() -> None:
    """Draws the chart of the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run that has ended")
    parser.add_argument("file", type=Path, help="SVG file to write")
    options = parser.parse_args()
    drawing = timeline(read_trace(RunFolder(options.run)))
    start = drawing.index(">") + 1
    options.file.write_text(f"{drawing[:start]}\n{THEME}{drawing[start:]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
