"""Applies a schedule of faults to a real run: `python -m tests.chaos.play --mode batch --seconds 60 --seed 7`.

Several seeds run one after the other; `--output` stores the verdict of each.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import batch_run, serve_run
from tests.chaos.scene import scene
from tests.chaos.schedule import MEAN_SECONDS, Mode, replay_line, schedule
from tests.chaos.verdict import Verdict
from tests.chaos.workload import WORKERS_OF, EngineName


async def play(
    mode: Mode,
    seed: int,
    seconds: float,
    *,
    mean: float = MEAN_SECONDS,
    calm: bool = False,
    engine: EngineName = "scripted",
) -> Verdict:
    """The verdict of one run with the faults of a seed (`calm`: without faults)."""
    verdict = Verdict(seed, mode, engine)
    faults = [] if calm else schedule(seed, seconds, mean, pool=engine == "vllm-pool")
    # A short path: names of sockets have at most 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    run = batch_run.run if mode == "batch" else serve_run.run
    async with scene(folder, verdict, mode, engine) as stage:
        await run(stage, faults, seconds)
    if verdict.ok:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        verdict.kept = str(folder)
    return verdict


def main() -> int:
    """Runs the seeds; returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Applies seeded faults to real runs, on scripted engines by default.")
    parser.add_argument("--mode", choices=["batch", "serve"], default="batch")
    parser.add_argument("--seconds", type=float, default=60.0, help="approximate duration of the work")
    parser.add_argument("--mean", type=float, default=MEAN_SECONDS, help="mean seconds between two faults")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="number of seeds, one after the other")
    parser.add_argument("--calm", action="store_true", help="the same runs without a fault")
    parser.add_argument("--engine", choices=list(WORKERS_OF), default="scripted", help="vllm: with drafts on")
    parser.add_argument("--output", type=Path, help="a file of JSON lines; one more for each run")
    options = parser.parse_args()
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # in background jobs of a shell too, which ignore them: disks must be unmounted
        signal.signal(number, signal.default_int_handler)
    ok = True
    for seed in range(options.seed, options.seed + options.runs):
        _say(replay_line(seed, options.seconds, options.mean, options.mode, options.engine))
        verdict = asyncio.run(
            play(options.mode, seed, options.seconds, mean=options.mean, calm=options.calm, engine=options.engine)
        )
        _say(*verdict.lines())
        if options.output is not None:
            with options.output.open("a") as file:
                file.write(json.dumps(verdict.as_dict()) + "\n")
        ok &= verdict.ok
    return 0 if ok else 1


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
