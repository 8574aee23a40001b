"""`openseer simulate` and `openseer plan`: what a rollout would take, on a virtual clock."""

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
    int, typer.Option(min=0, help="Tokens that a worker's KV cache holds, where neither manifest nor profile says it.")
]


def simulate(
    what: Annotated[str, typer.Argument(help="`paper`: the Seer paper's evaluation.", metavar="[paper]")] = "",
    replay: Annotated[
        Path | None, typer.Option(help="Folder of a run: what other policies would have done with its lengths.")
    ] = None,
    profile: Profile = None,
    kv_tokens: KvTokens = 0,
    case: Annotated[str, typer.Option(help="paper: one workload (moonlight, qwen2-vl-72b, kimi-k2), or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, max=50, help="paper: how many draws of lengths.")] = 1,
    quick: Annotated[bool, typer.Option(help="paper: on a quarter of each fleet.")] = False,
    dependence: Annotated[
        bool, typer.Option(help="paper: how results depend on what the paper does not say, in place of the systems.")
    ] = False,
    charts: Annotated[Path | None, typer.Option(help="paper: a folder for SVG files.")] = None,
    as_json: AsJson = False,
) -> None:
    """Plays rollouts on a virtual clock, with the product's own queue and policies.

    Either `openseer simulate paper`, or `openseer simulate --replay runs/NAME`.
    """
    if (what == PAPER) == (replay is not None) or what not in ("", PAPER):
        raise InputError(f"found {what or 'nothing to simulate'}: give either `paper` or --replay RUN")
    if replay is None and (profile is not None or kv_tokens):
        raise InputError(
            "found --profile or --kv-tokens, allowed: with --replay alone; `paper` has machines of its own"
        )
    if replay is not None and (case != "all" or seeds != 1 or quick or dependence or charts is not None):
        raise InputError("found --case, --seeds, --quick, --dependence or --charts, allowed: with `paper` alone")
    if replay is not None:
        from openseer_local.simulated.replayed import show_replay  # noqa: PLC0415 - `--help` is to be instant

        show_replay(replay, profile=profile, kv_tokens=kv_tokens, as_json=as_json)
        return
    from openseer_local.simulated.paper import PaperOptions, show_paper  # noqa: PLC0415 - as above

    show_paper(OUT, PaperOptions(case, seeds, quick, dependence, as_json, charts))


def add_to(app: typer.Typer, load: Load) -> None:
    """Both commands; `load` reads a manifest."""

    def plan(
        manifest: Annotated[Path, typer.Argument(help="The RolloutJob that is to be planned.")],
        gpus: Annotated[str, typer.Option(help="Sizes of the fleet: 8..256 doubles from 8 on; or 8,12,16.")] = "8..256",
        history: Annotated[
            list[Path] | None, typer.Option(help="A run, or its results.jsonl, whose lengths the job's are like.")
        ] = None,
        lengths: Annotated[
            str, typer.Option(help="Without a history: a distribution and its mean, such as reasoning:12000.")
        ] = "",
        profile: Profile = None,
        kv_tokens: KvTokens = 0,
        groups: Annotated[
            int | None, typer.Option(min=1, help="Prompt groups, where the job's source does not say it.")
        ] = None,
        deadline: Annotated[str, typer.Option(help="Time in which the job is to end, such as 2h or 90min.")] = "",
        price: Annotated[float | None, typer.Option(min=0, help="Price of a GPU-hour.")] = None,
        start: Annotated[
            float, typer.Option(min=0, help="Seconds from asking for workers to the first request; they are paid.")
        ] = 300.0,
        tail_release: Annotated[
            bool | None, typer.Option(help="Whether idle workers of the tail are released; otherwise as the manifest.")
        ] = None,
        draws: Annotated[int, typer.Option(min=1, max=50, help="Draws of lengths from the history.")] = 3,
        plot: Annotated[Path | None, typer.Option(help="Write a plot there, as SVG.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Says how long a job takes, on how many GPUs and at what cost, before it is started."""
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
