"""`openseer bench-gpu`: whether drafts pay on this device."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from openseer_local.terminal.console import ERR, AsJson


def bench_gpu(
    minutes: Annotated[
        float | None, typer.Option(help="Time for all of it; otherwise 8 on a GPU, 4.5 on a CPU.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a real model, instead of a shape.")] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="Shape with weights at random: tiny, 0.6b, 1.7b, 4b, 8b, 14b, 32b; otherwise 8b, on a CPU tiny."
        ),
    ] = "",
    batches: Annotated[str, typer.Option(help="Requests at once, whole numbers between commas.")] = "1,8,32,128,256",
    ways: Annotated[
        str, typer.Option(help="What is compared: stock (without drafts), drafts (ours), ngram and suffix (vLLM's).")
    ] = "stock,drafts,ngram,suffix",
    output: Annotated[
        Path | None, typer.Option(help="Folder of the figures, runs/bench-gpu; a run that was cut goes on from it.")
    ] = None,
    exact_model: Annotated[
        Path | None, typer.Option(help="Small real model to test exactness with; otherwise examples/tiny-model.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away the figures that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measures whether drafts pay on this device, and prints a table.

    Steps of vLLM without drafts (twice, for what two equal engines differ by), with openseer's and with vLLM's own;
    and that drafts change no text. The most valuable figures come first; Ctrl-C keeps them, and the same command goes
    on from there.
    """
    from openseer_worker.gpu_bench.main import command_of, run  # noqa: PLC0415 - `--help` is to be instant
    from openseer_worker.gpu_bench.options import OUTPUT, BenchOptions, listed, numbers  # noqa: PLC0415 - as above

    options = BenchOptions(
        minutes=minutes,
        model=model,
        shape=shape,
        batches=numbers(batches),
        ways=listed(ways),
        output=output or OUTPUT,
        exact_model=exact_model,
        as_json=as_json,
        fresh=fresh,
        command=command_of("openseer", sys.argv[1:]),
    )
    code = run(options, typer.echo, lambda line: ERR.print(line, highlight=False, markup=False, soft_wrap=True))
    if code:
        raise typer.Exit(code)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(bench_gpu)
