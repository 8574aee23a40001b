"""`openseer bench-gpu`: measures whether drafting speeds up decoding on this device."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from openseer_local.terminal.console import ERR, AsJson


def bench_gpu(
    minutes: Annotated[
        float | None, typer.Option(help="Time limit of the whole measurement; default: 8 on a GPU, 4.5 on a CPU.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a real model, in place of --shape.")] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="Shape of a model with random weights: tiny, 0.6b, 1.7b, 4b, 8b, 14b, 32b; default: 8b, on a CPU tiny."
        ),
    ] = "",
    batches: Annotated[
        str, typer.Option(help="Batch sizes (concurrent requests), separated by commas.")
    ] = "1,8,32,128,256",
    ways: Annotated[
        str, typer.Option(help="Compared ways: stock (no drafts), drafts (openseer's), ngram and suffix (vLLM's).")
    ] = "stock,drafts,ngram,suffix",
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; default: runs/bench-gpu. An interrupted run resumes from it."),
    ] = None,
    exact_model: Annotated[
        Path | None, typer.Option(help="Small real model for the test of exactness; default: examples/tiny-model.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete existing results.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measures whether drafting speeds up decoding on this device, and prints a table.

    Compares vLLM without drafts (twice, to show the difference of two equal engines), with openseer's drafts and with
    vLLM's own, and checks that drafts change no text. The most important results come first. Ctrl-C keeps the results,
    and the same command resumes.
    """
    from openseer_worker.gpu_bench.main import command_of, run  # noqa: PLC0415 - keeps `--help` fast
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
    """Adds the command `bench-gpu` to `app`."""
    app.command()(bench_gpu)
