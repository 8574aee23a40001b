"""Charts of the study as SVG files for a page, with colours for light and dark themes."""

# matplotlib has types only in part.
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping, Sequence

from openseer_driver.report.chart_style import AMBER, BLUE, GREY, MUTED, SERIES, figure, legend_above, styled, svg
from openseer_sim.paper.sensitivity import VariationRow
from openseer_sim.paper.study import PaperRow

_COLOURS = (
    "<style>svg{--ink:#1f2328;--muted:#59636e;--grid:#d1d9e0;--paper:#ffffff;--sans:sans-serif}"
    "@media(prefers-color-scheme:dark){svg{--ink:#f0f6fc;--muted:#9198a1;--grid:#3d444d;--paper:#0d1117}}</style>"
)


def standalone(drawing: str) -> str:
    """Adds colours to a drawing in the report's style, so that a page can show it as an image file."""
    head, end, body = drawing.partition(">")
    return head + end + _COLOURS + body + "\n"


@styled
def ratios_chart(studies: Mapping[str, Sequence[PaperRow]]) -> str:
    """Per workload a pair of bars for each system: the throughput that the paper reports, and the simulated one."""
    made, rows = figure(2.3 * len(studies) + 2.2, len(studies), (1.0,) * len(studies))
    fullest_first = sorted(studies.values(), key=len, reverse=True)
    names = list(dict.fromkeys(row.name for systems in fullest_first for row in systems))
    for axes, (name, systems) in zip(rows, studies.items(), strict=True):
        known = [(names.index(row.name), row.reported) for row in systems if row.reported is not None]
        places = [names.index(row.name) + 0.2 for row in systems]
        axes.bar([place - 0.2 for place, _ in known], [ratio for _, ratio in known], 0.36, color=GREY, label="paper")
        axes.bar(places, [row.ratio for row in systems], 0.36, color=BLUE, label="simulated")
        axes.errorbar(
            places,
            [(row.high + row.low) / 2 for row in systems],
            yerr=[(row.high - row.low) / 2 for row in systems],
            fmt="none",
            ecolor=MUTED,
            elinewidth=1.0,
        )
        axes.axhline(1.0, color=AMBER, linewidth=0.9)
        axes.set_ylabel(f"{name}\nthroughput, veRL = 1")
        axes.grid(visible=False, axis="x")
        axes.set_xticks(range(len(names)), names, rotation=38, ha="right")
    legend_above(rows[0])
    return standalone(svg(made, "Throughput by system, paper and simulated", "paper-ratios"))


@styled
def sensitivity_chart(rows: Sequence[VariationRow]) -> str:
    """One line per system for each varied quantity."""
    kinds = list(dict.fromkeys(row.what for row in rows))
    made, panels = figure(3.4)
    axes = panels[0]
    place, ticks = 0.0, list[tuple[float, str]]()
    labelled = set[str]()
    for kind in kinds:
        chosen = [row for row in rows if row.what == kind]
        places = [place + number for number in range(len(chosen))]
        ticks += [(at, row.value) for at, row in zip(places, chosen, strict=True)]
        axes.annotate(kind, (places[0], 1.0), xycoords=("data", "axes fraction"), fontsize=7, color=MUTED, va="bottom")
        names = dict.fromkeys(name for row in chosen for name in row.ratios)
        for colour, name in zip(SERIES, ("Seer as printed", "openseer", "oracle"), strict=False):
            if name in names:
                values = [row.ratios[name] for row in chosen]
                label = None if name in labelled else name
                axes.plot(places, values, marker="o", markersize=3.5, linewidth=1.2, color=colour, label=label)
                labelled.add(name)
        place = places[-1] + 1.6
    axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks], rotation=40, ha="right", fontsize=7)
    axes.set_ylabel("throughput, veRL = 1")
    axes.legend(loc="lower left", ncols=3)
    return standalone(svg(made, "Sensitivity of the results", "paper-sensitivity"))
