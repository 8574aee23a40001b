"""Measures time and memory of a million prompts before the first claim, without the tokenizer's own memory.

    PYTHONPATH=benchmarks python benchmarks/inputs/prompt_source.py

`validate` is the command. `driver` is the process of a driver pod with a real Redis; it is measured until a worker has
its first claim, and until all groups are queued. Each also runs with one prompt; the difference of the two peaks is the
prompts' memory. The tokenizer is the tiny model's. The sources are JSON lines, gzip and Parquet of the same questions.
"""

# pyright: reportUnknownArgumentType=false

import argparse
import asyncio
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from support.stamp import Stamp

from openseer_core.ids import BATCH_JOB_BATCH, INITIAL_VERSION, WorkerId
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import ClaimQuery
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store

MODEL = Path(__file__).resolve().parents[2] / "examples/tiny-model/model"
FORMATS = ("jsonl", "jsonl.gz", "parquet")
JOB = "benchmark"
LIMIT_MIB = 500
POLL_SECONDS = 0.2
PIECE = 10_000


def main() -> None:
    """Runs every format with one prompt and with all, and prints seconds and MiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--group-size", type=int, default=1)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--quick", action="store_true", help="few prompts, JSON lines only")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.prompts, options.formats = 20_000, ["jsonl"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="prompt-source-") as folder:
        for name in options.formats:
            found[name] = measure(Path(folder) / name.replace(".", "-"), name, options.prompts, options.group_size)
            print(name, json.dumps(found[name]), flush=True)
    measurements = {"prompts": options.prompts, "group_size": options.group_size, "formats": found} | stamp.fields()
    worst = max(run[f"{what}_over_mib"] for run in found.values() for what in ("validate", "driver"))
    print(f"at most {worst:.0f} MiB over the tokenizer's process (limit {LIMIT_MIB})")
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1) + "\n")


def measure(folder: Path, name: str, prompts: int, group_size: int) -> dict[str, float]:
    """One format: peaks with one prompt and with all, and their difference."""
    one, many = prepare(folder / "one", name, 1, group_size), prepare(folder / "many", name, prompts, group_size)
    source = many / f"prompts.{name}"
    base, run = validate(one), validate(many)
    driver_base, driver = asyncio.run(drive(one)), asyncio.run(drive(many))
    return {
        "source_mib": source.stat().st_size / 2**20,
        "validate_seconds": run["seconds"],
        "validate_base_mib": base["peak_mib"],
        "validate_over_mib": run["peak_mib"] - base["peak_mib"],
        "first_claim_seconds": driver["first_claim_seconds"],
        "all_queued_seconds": driver["all_queued_seconds"],
        "driver_base_mib": driver_base["peak_mib"],
        "driver_over_mib": driver["peak_mib"] - driver_base["peak_mib"],
    }


def prepare(folder: Path, name: str, prompts: int, group_size: int) -> Path:
    """A folder with the source and its job, as YAML for the command and as JSON for the driver."""
    folder.mkdir(parents=True)
    write(folder / f"prompts.{name}", prompts)
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": JOB},
        "spec": {
            "model": {"path": str(MODEL)},
            "prompts": {"path": f"prompts.{name}", "fields": {"prompt": "question", "metadata": ["answer"]}},
            "groupSize": group_size,
            "sampling": {"maxTokens": 64},
        },
    }
    (folder / "job.json").write_text(json.dumps(document))
    (folder / "job.yaml").write_text(json.dumps(document))
    return folder


def questions(prompts: int) -> Iterator[list[dict[str, str]]]:
    """The rows, in pieces; a row has about 100 characters."""
    for first in range(0, prompts, PIECE):
        yield [
            {
                "question": f"Compute {number} + {number * 7} and say step by step how you found the sum of the two.",
                "answer": str(number * 8),
            }
            for number in range(first, min(prompts, first + PIECE))
        ]


def write(path: Path, prompts: int) -> None:
    """Writes the source in the format of its name."""
    if path.suffix == ".parquet":
        schema = pa.schema({"question": pa.string(), "answer": pa.string()})
        with parquet.ParquetWriter(path, schema) as writer:
            rows = [row for piece in questions(prompts) for row in piece]
            writer.write_table(pa.Table.from_pylist(rows, schema))
        return
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as file:
        for piece in questions(prompts):
            file.write("".join(json.dumps(row) + "\n" for row in piece).encode())


def validate(folder: Path) -> dict[str, float]:
    """Runs `openseer validate` on the folder's job."""
    began = time.monotonic()
    command = [sys.executable, "-c", "from openseer_local.main import main; main()", "validate", "job.yaml"]
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return {"seconds": time.monotonic() - began, "peak_mib": usage.ru_maxrss / 2**10}


async def drive(folder: Path) -> dict[str, float]:
    """Runs the driver of the folder's job until all groups are queued, while a worker claims."""
    async with EmbeddedRedis(folder / "store") as url:
        store = await open_store(url, JOB)
        options = ("--job", "job.json", "--output", "run", "--store", url, "--http-port", "0")
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "openseer_driver.main", *options], cwd=folder)
        try:
            await until_claimed(store, process)
            first_claim = time.monotonic() - began
            while not (await store.progress(BATCH_JOB_BATCH)).sealed:
                assert process.poll() is None
                await asyncio.sleep(POLL_SECONDS)
            return {
                "first_claim_seconds": first_claim,
                "all_queued_seconds": time.monotonic() - began,
                "peak_mib": peak_mib(process.pid),
            }
        finally:
            process.terminate()
            process.wait()
            await store.close()


async def until_claimed(store: Store, process: "subprocess.Popen[bytes]") -> None:
    """Returns when a worker has a request."""
    query = ClaimQuery(
        version=INITIAL_VERSION,
        lanes=(SHARED_LANE,),
        slots=1,
        blocks=1000,
        layout=whole(16),
        quantum=64,
        context_tokens=4096,
        margin=0,
        slack=1,
        lease_seconds=60.0,
    )
    while not await store.claim(WorkerId("worker-0", "boot"), query):
        assert process.poll() is None
        await asyncio.sleep(POLL_SECONDS)


def peak_mib(pid: int) -> float:
    """Peak memory of a running process so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 2**10


if __name__ == "__main__":
    main()
