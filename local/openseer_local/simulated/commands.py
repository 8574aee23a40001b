"""The commands `openseer simulate` and `openseer plan`: simulate rollouts on a virtual clock."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_local.terminal.console import OUT, AsJson

PAPER = "paper"
Load = Callable[[Path], tuple[dict[str, Any], RolloutJob]]
Profile = Annotated[
    Path | None,
    typer.Option(help="An engine's step times: the report of `openseer bench-gpu` (docs/planning.md)."),
]
KvTokens = Annotated[
    int,
    typer.Option(min=0, help="Capacity of a worker's KV cache in tokens, if neither manifest nor profile states it."),
]


def simulate(
    what: Annotated[str, typer.Argument(help="`paper`: the Seer paper's evaluation.", metavar="[paper]")] = "",
    replay: Annotated[
        Path | None, typer.Option(help="Folder of a run: simulates all policies with its lengths.")
    ] = None,
    profile: Profile = None,
    kv_tokens: KvTokens = 0,
    case: Annotated[str, typer.Option(help="paper: one workload (moonlight, qwen2-vl-72b, kimi-k2), or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, max=50, help="paper: number of draws of lengths.")] = 1,
    quick: Annotated[bool, typer.Option(help="paper: simulate a quarter of each fleet.")] = False,
    dependence: Annotated[
        bool, typer.Option(help="paper: show how results depend on unstated parameters, in place of the systems.")
    ] = False,
    charts: Annotated[Path | None, typer.Option(help="paper: folder for SVG files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulates rollouts on a virtual clock, with openseer's own queue and policies.

    Either `openseer simulate paper`, or `openseer simulate --replay runs/NAME`.
    """
    if (what == PAPER) == (replay is not None) or what not in ("", PAPER):
        raise InputError(f"found {what or 'nothing to simulate'}: give either `paper` or --replay RUN")
    if replay is None and (profile is not None or kv_tokens):
        raise InputError("found --profile or --kv-tokens, allowed: only with --replay; `paper` has fixed machines")
    if replay is not None and (case != "all" or seeds != 1 or quick or dependence or charts is not None):
        raise InputError("found --case, --seeds, --quick, --dependence or --charts, allowed: only with `paper`")
    if replay is not None:
        from openseer_local.simulated.replayed import show_replay  # noqa: PLC0415 - keeps `--help` fast

        show_replay(replay, profile=profile, kv_tokens=kv_tokens, as_json=as_json)
        return
    from openseer_local.simulated.paper import PaperOptions, show_paper  # noqa: PLC0415 - as above

    show_paper(OUT, PaperOptions(case, seeds, quick, dependence, as_json, charts))


def add_to(app: typer.Typer, load: Load) -> None:
    """Adds both commands; `load` reads a manifest."""

    def plan(
        manifest: Annotated[Path, typer.Argument(help="The RolloutJob to plan.")],
        gpus: Annotated[
            str, typer.Option(help="Fleet sizes: 8..256 doubles from 8 to 256; or a list such as 8,12,16.")
        ] = "8..256",
        history: Annotated[
            list[Path] | None, typer.Option(help="A run, or its results.jsonl, with lengths like the job's.")
        ] = None,
        lengths: Annotated[
            str, typer.Option(help="Without --history: a distribution and its mean, such as reasoning:12000.")
        ] = "",
        profile: Profile = None,
        kv_tokens: KvTokens = 0,
        groups: Annotated[
            int | None, typer.Option(min=1, help="Number of prompt groups, if the job's source does not state it.")
        ] = None,
        deadline: Annotated[str, typer.Option(help="Time limit of the job, such as 2h or 90min.")] = "",
        price: Annotated[float | None, typer.Option(min=0, help="Price of a GPU-hour.")] = None,
        start: Annotated[
            float, typer.Option(min=0, help="Seconds from requesting workers to the first request; they count as cost.")
        ] = 300.0,
        tail_release: Annotated[
            bool | None,
            typer.Option(help="Whether idle workers are released in the tail; default: as in the manifest."),
        ] = None,
        draws: Annotated[int, typer.Option(min=1, max=50, help="Draws of lengths from the history.")] = 3,
        plot: Annotated[Path | None, typer.Option(help="Write a plot to this file, as SVG.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Estimates a job's time, GPUs and cost before it is started."""
        from openseer_local.simulated.plan import PlanCommand, show_plan  # noqa: PLC0415 - as above

        _, job = load(manifest)
        command = PlanCommand(
            gpus=gpus,
            history=tuple(history or ()),
            lengths=lengths,
            profile=profile,
            kv_tokens=kv_tokens,
            groups=groups,
            deadline=deadline,
            price=price,
            start_seconds=start,
            tail_release=tail_release,
            draws=draws,
            plot=plot,
            as_json=as_json,
        )
        show_plan(job, command)

    app.command()(simulate)
    app.command()(plan)
