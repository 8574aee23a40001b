"""`openseer simulate paper`: simulates the Seer paper's evaluation and compares it with the paper's results."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from openseer_core.errors import InputError, OutputError
from openseer_sim.paper.calibration import VerlColumns, verl_columns
from openseer_sim.paper.cases import CASES, PaperCase
from openseer_sim.paper.sensitivity import VariationRow, sensitivity
from openseer_sim.paper.study import APRIL, VERL, PaperRow, study

PART = 0.25
"""Simulated fraction of a fleet and its requests with --quick, and with --dependence."""
QUICK = 0.125
"""Simulated fraction of a fleet and its requests with --quick and --dependence."""
FIRST_SEED = 1


@dataclass(frozen=True, slots=True)
class PaperOptions:
    """Options of the command. `case`: one workload, or "all". `seeds`: number of seeds. `quick`: simulates a smaller
    part of each fleet. `dependence`: shows how three systems depend on parameters that the paper does not state, in
    place of all systems. `charts`: folder for SVG files."""

    case: str = "all"
    seeds: int = 1
    quick: bool = False
    dependence: bool = False
    as_json: bool = False
    charts: Path | None = None

    def chosen(self) -> list[PaperCase]:
        """The chosen workloads. Raises InputError for an unknown name, or no seeds."""
        if self.case != "all" and self.case not in CASES:
            raise InputError(f"--case {self.case}: no such workload; there are {', '.join(CASES)}, and all")
        if self.seeds < 1:
            raise InputError(f"--seeds {self.seeds}: at least one is needed")
        return list(CASES.values()) if self.case == "all" else [CASES[self.case]]

    @property
    def used_seeds(self) -> range:
        """The seeds, from FIRST_SEED on."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)


def show_paper(console: Console, options: PaperOptions) -> None:
    """Simulates the evaluation and prints tables or JSON. Before the simulation it raises InputError for wrong options
    and OutputError for a folder of charts that cannot be created."""
    cases = options.chosen()
    if options.charts:
        _make(options.charts)
    show = _show_dependence if options.dependence else _show_systems
    if options.as_json:
        show(console, options, cases, lambda _text: None)
        return
    with console.status("begins", spinner="line") as status:
        show(console, options, cases, status.update)


def _show_systems(console: Console, options: PaperOptions, cases: list[PaperCase], note: Callable[[str], None]) -> None:
    studies: dict[str, list[PaperRow]] = {}
    columns: dict[str, VerlColumns] = {}
    for case in cases:
        columns[case.name] = verl_columns(case, tuple(options.used_seeds))
        studies[case.name] = list(study(case, options.used_seeds, note, part=PART if options.quick else 1.0))
        if not options.as_json:
            console.print(calibration_table(case, columns[case.name]), systems_table(case, studies[case.name]))
    if options.as_json:
        console.print_json(
            json.dumps(
                {
                    case.name: {
                        "instances": case.instances,
                        "requests": case.requests,
                        "part": PART if options.quick else 1.0,
                        "seeds": list(options.used_seeds),
                        "fit": asdict(case.fit),
                        "verl": asdict(columns[case.name]),
                        "systems": [asdict(row) for row in studies[case.name]],
                    }
                    for case in cases
                }
            )
        )
    if options.charts:
        from openseer_sim.paper.charts import ratios_chart  # noqa: PLC0415 - matplotlib takes a second

        _write(options.charts / "paper-ratios.svg", ratios_chart(studies))


def _show_dependence(
    console: Console, options: PaperOptions, cases: list[PaperCase], note: Callable[[str], None]
) -> None:
    part = QUICK if options.quick else PART
    found = {case.name: list(sensitivity(case, part, options.used_seeds, note)) for case in cases}
    if options.as_json:
        console.print_json(json.dumps({name: [asdict(row) for row in rows] for name, rows in found.items()}))
    else:
        for name, rows in found.items():
            console.print(dependence_table(name, rows))
    if options.charts:
        from openseer_sim.paper.charts import sensitivity_chart  # noqa: PLC0415 - as above

        for name, rows in found.items():
            _write(options.charts / f"paper-dependence-{name}.svg", sensitivity_chart(rows))


def calibration_table(case: PaperCase, found: VerlColumns) -> Table:
    """Returns a table of the parameters fitted on veRL's columns, and of veRL's simulation with them."""
    figures, fit = case.figures, case.fit
    table = _table(f"{case.name}: {case.requests:,} requests on {case.instances} instances, fitted on veRL alone")
    for title in ("", "paper", "simulated", "fitted"):
        table.add_column(title, justify="left" if title in ("", "fitted") else "right")
    part = figures.verl_tail / figures.verl_total
    table.add_row("total, s", f"{figures.verl_total:,.0f}", f"{found.total:,.0f}", f"efficiency {fit.efficiency:g}")
    table.add_row("tail / total", f"{part:.1%}", f"{found.tail_part:.1%}", f"spread of lengths {fit.spread:g}")
    cost = f"{fit.per_draft * 1e6:.0f} µs a drafted token"
    table.add_row("veRL + SD", f"{figures.verl_drafts:.2f}", "see below", cost)
    table.add_row("idle", "", f"{found.idle:.0%}", f"assumed: correlation {fit.correlation:g}")
    return table


def systems_table(case: PaperCase, rows: list[PaperRow]) -> Table:
    """Returns a table with a row for each system; ratios that differ from the paper's by more than 10 % are marked."""
    table = _table("throughput and tail, veRL = 1; ranges over seeds", caption=_caption(rows))
    table.add_column("system")
    for title in ("paper", "simulated", "off", "tail s, paper", "tail s", "tail cut", "idle", "moves"):
        table.add_column(title, justify="right")
    for row in rows:
        off = None if row.reported is None or row.name == VERL else row.ratio / row.reported - 1
        style = "yellow" if off is not None and abs(off) > 0.1 else ""
        spread = f" {row.low:.2f}-{row.high:.2f}" if row.high - row.low >= 0.005 else ""
        table.add_row(
            row.name,
            "–" if row.reported is None else f"{row.reported:.2f}",
            f"{row.ratio:.2f}[dim]{spread}[/dim]",
            "" if off is None else f"[{style}]{off:+.0%}[/{style}]" if style else f"{off:+.0%}",
            "–" if row.reported_tail is None else f"{row.reported_tail:,.0f}",
            "–" if row.tail is None else f"{row.tail:,.0f}",
            "–" if row.tail_cut is None else f"{row.tail_cut:.0%}",
            f"{row.idle:.0%}",
            f"{row.moves:,.0f}",
        )
    return table


def dependence_table(name: str, rows: list[VariationRow]) -> Table:
    """Returns a table with a row for each variation of a parameter."""
    table = _table(f"{name}: sensitivity of the results: throughput (veRL = 1) and the removed part of the tail")
    table.add_column("varied")
    table.add_column("value")
    systems = list(dict.fromkeys(system for row in rows for system in row.ratios))
    for system in systems:
        table.add_column(system, justify="right")
    before = ""
    for row in rows:
        cells = (
            f"{row.ratios[system]:.2f}  [dim]{row.tail_cuts[system]:.0%}[/dim]" if system in row.ratios else "–"
            for system in systems
        )
        table.add_row(row.what if row.what != before else "", row.value, *cells)
        before = row.what
    return table


def _caption(rows: list[PaperRow]) -> str:
    return "\n".join(_notes({row.name: row for row in rows}))


def _notes(rows: dict[str, PaperRow]) -> Iterator[str]:
    april = rows.get(APRIL)
    ours = next((row for name, row in rows.items() if name.startswith("Seer as printed +")), None)
    if april and ours:
        yield f"Seer with drafts over APRIL: {ours.ratio / april.ratio:.2f} (paper: 1.43, workload not stated)."


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title, caption=caption or None, box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left",
        caption_justify="left",
    )  # fmt: skip


def _make(folder: Path) -> None:
    """Creates the folder before the simulation, which may take hours. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}") from error


def _write(path: Path, drawing: str) -> None:
    try:
        path.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
