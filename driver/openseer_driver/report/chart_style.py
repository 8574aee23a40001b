"""The style of the report's charts, and their conversion to SVG with the page's light or dark colours."""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from openseer_driver.report.pace import duration

Arguments = ParamSpec("Arguments")

WIDTH = 9.2
"""Width of every chart, in inches."""
RASTER_FROM = 1500
"""More marks than this are drawn as one image inside the SVG: a page with so many elements scrolls slowly."""

# Placeholders: `svg` replaces them with the page's CSS variables, so that one drawing fits both themes.
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}

BLUE, PURPLE, AMBER, RED, GREEN, GREY = "#4a86c8", "#8c65c4", "#dd9a2f", "#d4524a", "#3c9d7c", "#8b919b"
SERIES = (BLUE, AMBER, GREEN, PURPLE, RED, "#3fa7b5", "#b5739d", "#8d9440")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.constrained_layout.use": True,
    "lines.solid_capstyle": "butt",
}


def styled(draw: Callable[Arguments, str]) -> Callable[Arguments, str]:
    """Decorator: draws a chart in the common style, without changing matplotlib's settings elsewhere."""

    @wraps(draw)
    def draw_styled(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        with mpl.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def figure(height: float, rows: int = 1, ratios: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width with `rows` charts that share a horizontal axis. `height`: in inches; `ratios`: of
    the rows' heights."""
    made = Figure(figsize=(WIDTH, height))
    grid = made.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=list(ratios) if rows > 1 else None)
    return made, [grid[row][0] for row in range(rows)]


def svg(made: Figure, title: str, salt: str) -> str:
    """The figure as an inline SVG element. `salt` makes its ids unique in the page."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        made.savefig(
            text,
            format="svg",
            transparent=True,
            dpi=220,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, variable)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", drawing)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", drawing, count=2)
    drawing = drawing.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    return drawing.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def time_axis(axes: Axes, end: float, *, label: bool = True) -> None:
    """Formats the horizontal axis as minutes and seconds since the first claim."""
    axes.set_xlim(0, max(end, 1e-3))
    steps = [1, 1.2, 1.5, 2, 3, 6, 10] if end > 100 else [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(_minutes))
    if label:
        axes.set_xlabel("time since the first request was claimed (min:s)")


def count_axis(axes: Axes, label: str, ticks: int = 4) -> None:
    """Formats the vertical axis as integers from zero on."""
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(whole))


def shade_tail(axes: Axes, start: float, end: float) -> None:
    """Shades the time in which the last ten percent of the requests ran."""
    axes.axvspan(start, end, zorder=0, color=AMBER, alpha=0.13, linewidth=0)


def legend_above(axes: Axes, columns: int = 6) -> None:
    """Adds a legend above the chart, which hides no data; adds nothing if no data have a label."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handlelength=1.4)


def whole(value: float, _position: int | None) -> str:
    """Formats the value of a tick as an integer."""
    return f"{value:,.0f}"


def _minutes(value: float, _position: int | None) -> str:
    return duration(value)
