"""Draws the report's charts of response lengths: by group, and compared with their estimates."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from openseer_core.ids import PROBE_INDEX
from openseer_driver.report.chart_style import (
    BLUE,
    GREY,
    INK,
    MUTED,
    PURPLE,
    RASTER_FROM,
    figure,
    legend_above,
    styled,
    svg,
    whole,
)
from openseer_driver.report.report import EstimatePoint
from openseer_driver.report.trace import Fact, Trace

WIDE = 25
"""Ratio of the largest to the smallest length above which the scale is logarithmic."""


@styled
def lengths_by_group(trace: Trace) -> str:
    """A column of dots per group, groups sorted by their mean: shows the variance between groups and within each."""
    groups: dict[tuple[int, str], list[Fact]] = defaultdict(list)
    for fact in trace.facts:
        if fact.status == "ok":
            groups[fact.group_key].append(fact)
    ordered = sorted(groups.values(), key=lambda group: fmean(fact.length for fact in group))
    made, (axes,) = figure(3.3)
    dots = [(position, fact) for position, group in enumerate(ordered, start=1) for fact in group]
    many = len(dots) > RASTER_FROM
    for index0, colour, name in ((False, BLUE, "response"), (True, PURPLE, "probe, which ran first")):
        chosen = [(position, fact.length) for position, fact in dots if (fact.index == PROBE_INDEX) is index0]
        axes.scatter(
            [position for position, _ in chosen],
            [length for _, length in chosen],
            s=5 if many else 15,
            color=colour,
            alpha=0.5 if many else 0.65,
            linewidths=0,
            rasterized=many,
            label=name,
        )
    means = [fmean(fact.length for fact in group) for group in ordered]
    axes.step(range(1, len(means) + 1), means, where="mid", color=INK, linewidth=1.1, label="mean of the group")
    axes.set_xlim(0.3, len(ordered) + 0.7)
    axes.set_xlabel("groups, sorted by their mean")
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.set_ylabel("tokens")
    _scale(axes, [fact.length for _, fact in dots], both=False)
    legend_above(axes)
    return svg(made, "Lengths of the responses by group", "lengths")


@styled
def estimates(points: Sequence[EstimatePoint]) -> str:
    """A dot per request that is not a probe: its estimate at the first claim against its true length."""
    made, (axes,) = figure(4.4)
    many = len(points) > RASTER_FROM
    kinds = ((True, BLUE, "a sibling had finished"), (False, GREY, "no sibling had finished: the limit"))
    for informed, colour, name in kinds:
        chosen = [point for point in points if point.informed is informed]
        axes.scatter(
            [point.length for point in chosen],
            [point.estimate for point in chosen],
            s=6 if many else 15,
            color=colour,
            alpha=0.45 if many else 0.65,
            linewidths=0,
            rasterized=many,
            label=f"{name} ({len(chosen):,})",
        )
    values = [value for point in points for value in (point.length, point.estimate)]
    _scale(axes, values, both=True)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), label="exact")
    axes.set_aspect("equal")
    axes.set_xlabel("true length, tokens")
    axes.set_ylabel("estimate, tokens")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0)
    return svg(made, "Estimated against true lengths", "estimates")


def _scale(axes: Axes, values: Sequence[int], *, both: bool) -> None:
    low, high = max(1, min(values, default=1)), max(2, *values, 2)
    wide = high / low > WIDE
    for name in ("x", "y") if both else ("y",):
        limits = (low / 1.25, high * 1.25) if wide else (0, high * 1.06)
        axis = axes.xaxis if name == "x" else axes.yaxis
        axes.set(**{f"{name}scale": "log" if wide else "linear", f"{name}lim": limits})
        if wide:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(whole))
        axis.set_minor_formatter(NullFormatter())
