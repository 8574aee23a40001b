"""Draws the report's charts of drafting: by siblings to draft from, by origin, and over time."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.ticker import FuncFormatter, MaxNLocator

from openseer_core.queue.batch import tail_start
from openseer_core.worker.draft_metrics import CORPUS_SIZES, summed
from openseer_driver.report.chart_style import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    figure,
    legend_above,
    shade_tail,
    styled,
    svg,
    time_axis,
    whole,
)
from openseer_driver.report.drafting import DraftPoint, DraftReport
from openseer_driver.report.trace import Trace

PAPER_LENGTHS = {0: 1.70, 1: 2.04, 4: 2.32, 8: 2.53}
"""Acceptance lengths of the Seer paper at 0, 1, 5 and 15 reference responses (one draft path). Key: the lower end of
the range of CORPUS_SIZES with this number of responses."""
MOST_POINTS = 160
"""Limit of points of a line over time; neighbouring points are joined, since the page's width shows no more."""
ORIGIN_NAMES = {
    "own": "the response itself",
    "siblings": "its siblings",
    "earlier": "earlier batches",
    "prompt": "the prompt",
}


@styled
def acceptance_lengths(drafting: DraftReport) -> str:
    """A bar per number of siblings to draft from, with the paper's measurements."""
    made, (axes,) = figure(2.7)
    shown = CORPUS_SIZES[: 1 + max(CORPUS_SIZES.index(int(count)) for count in drafting.by_references)]
    lengths = [_length(drafting, count) for count in shown]
    positions = range(len(shown))
    axes.bar(positions, lengths, width=0.62, color=BLUE, linewidth=0, label="this run")
    for position, length in enumerate(lengths):
        text = f"{length:.2f}" if length else ""
        axes.annotate(text, (position, 0), (0, 5), textcoords="offset points", ha="center", color=PAPER)
    paper = [(position, PAPER_LENGTHS[count]) for position, count in enumerate(shown) if count in PAPER_LENGTHS]
    axes.plot(
        *zip(*paper, strict=True),
        "o-",
        color=AMBER,
        linewidth=1.0,
        markersize=4,
        markeredgecolor=PAPER,
        markeredgewidth=0.8,
        label="the Seer paper, at 0, 1, 5 and 15",
    )
    axes.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)), label="without drafts")
    axes.set_xticks(positions, [_range_label(drafting, position) for position in positions])
    axes.set_xlabel("siblings' responses to draft from, and number of request-steps")
    axes.set_ylabel("tokens per request-step")
    axes.set_ylim(0, max([*lengths, *(length for _, length in paper)]) * 1.1)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=False, axis="x")
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, handlelength=1.4)
    return svg(made, "Acceptance length by siblings to draft from", "acceptance")


@styled
def origins(drafting: DraftReport) -> str:
    """A bar per origin of drafts: its drafted tokens, divided into accepted and wasted tokens."""
    used = [name for name, origin in drafting.by_source.items() if origin.drafted]
    made, (axes,) = figure(0.85 + 0.38 * len(used))
    parts = [drafting.by_source[name] for name in used]
    accepted = [part.accepted for part in parts]
    positions = range(len(used))
    axes.barh(positions, accepted, height=0.62, color=GREEN, linewidth=0, label="accepted")
    axes.barh(positions, [part.wasted for part in parts], 0.62, accepted, color=GREY, alpha=0.45, label="wasted")
    for position, part in enumerate(parts):
        text = f"{part.accepted:,} of {part.drafted:,}, {100 * part.accepted / part.drafted:.0f} %"
        axes.annotate(text, (part.drafted, position), (5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(positions, [ORIGIN_NAMES.get(name, name) for name in used])
    axes.set_ylim(len(used) - 0.5, -0.5)
    axes.set_xlim(0, max(part.drafted for part in parts) * 1.22)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(whole))
    axes.set_xlabel("tokens drafted")
    axes.grid(visible=False, axis="y")
    legend_above(axes)
    return svg(made, "Drafted tokens by origin", "sources")


@styled
def over_time(trace: Trace, points: Sequence[DraftPoint]) -> str:
    """Upper chart: tokens drafted and accepted per request-step. Lower chart: time of drafting per engine step."""
    made, (above, below) = figure(3.9, 2, (1.5, 1.0))
    joined = _joined(points)
    times = [0.0, *(min(trace.clock.at(point.at), trace.end) for point in joined)]
    drafted = [point.counts.draft_length for point in joined]
    accepted = [point.counts.draft_length * point.counts.acceptance for point in joined]
    milliseconds = [1000 * point.counts.seconds_per_step for point in joined]
    tail = tail_start(trace.finish_times())
    for axes in (above, below):
        shade_tail(axes, tail, trace.end)
    above.stairs(drafted, times, baseline=None, color=GREY, linewidth=1.4, label="drafted")
    above.stairs(accepted, times, fill=True, color=GREEN, alpha=0.55, linewidth=0, label="accepted of them")
    above.set_ylabel("tokens per request-step")
    below.stairs(milliseconds, times, baseline=None, color=BLUE, linewidth=1.4, label="time in drafting")
    below.set_ylabel("ms per step")
    for axes, values in ((above, drafted), (below, milliseconds)):
        axes.set_ylim(0, max([*values, 1e-6]) * 1.1)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        legend_above(axes)
    time_axis(below, trace.end)
    return svg(made, "Draft lengths and time in drafting", "drafting")


def _length(drafting: DraftReport, count: int) -> float:
    found = drafting.by_references.get(str(count))
    return found.acceptance_length if found is not None else 0.0


def _range_label(drafting: DraftReport, position: int) -> str:
    low, high = [*pairwise([*CORPUS_SIZES, 0])][position]
    last = f"{low} to {high - 1}" if high else f"from {low}"
    span = f"{low}" if high == low + 1 else last
    found = drafting.by_references.get(str(low))
    return f"{span}\n{found.row_steps if found is not None else 0:,}"


def _joined(points: Sequence[DraftPoint]) -> list[DraftPoint]:
    """Joins neighbouring points, so that at most MOST_POINTS remain."""
    width = -(-len(points) // MOST_POINTS) or 1
    pieces = [points[start : start + width] for start in range(0, len(points), width)]
    return [DraftPoint(piece[-1].at, summed(point.counts for point in piece)) for piece in pieces]
