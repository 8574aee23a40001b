"""The plot of a plan: time and GPU-hours by the size of the fleet."""

# matplotlib is only partly typed.
# pyright: reportUnknownMemberType=false

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from openseer_driver.report.chart_style import AMBER, BLUE, GREY, figure, styled, svg
from openseer_sim.planning import SECONDS_PER_HOUR, JobPlan, Spread

LIGHT = "--ink: #1f2430; --muted: #6b7280; --grid: #e5e7eb; --paper: #ffffff; --sans: sans-serif"
"""The CSS variables of a report's page, for a drawing outside of a page."""


@styled
def plan_plot(plan: JobPlan) -> str:
    """An SVG: time above, GPU-hours below, each with its interval; the recommended fleet is marked."""
    made, (above, below) = figure(4.2, rows=2, ratios=(1, 1))
    gpus = [fleet.gpus for fleet in plan.fleets]
    _band(above, gpus, [fleet.seconds.times(1 / SECONDS_PER_HOUR) for fleet in plan.fleets], BLUE, "time (h)")
    _band(below, gpus, [fleet.gpu_hours for fleet in plan.fleets], AMBER, "GPU-hours")
    for axes in (above, below):
        if plan.chosen is not None:
            axes.axvline(plan.chosen.gpus, color=GREY, linewidth=1, linestyle=":")
    below.set_xscale("log", base=2)
    below.xaxis.set_major_locator(FixedLocator([float(size) for size in gpus]))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_major_formatter(ScalarFormatter())
    below.set_xlabel("GPUs")
    drawing = svg(made, f"plan of {plan.job}", "plan")
    return drawing.replace("<svg", f'<svg style="{LIGHT}"', 1)


def _band(axes: Axes, gpus: list[int], spans: list[Spread], colour: str, label: str) -> None:
    low, high = [span.low for span in spans], [span.high for span in spans]
    axes.fill_between(gpus, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(gpus, [span.median for span in spans], color=colour, marker="o", markersize=3)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
