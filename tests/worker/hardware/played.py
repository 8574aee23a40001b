"""The played NVIDIA library: built by the C compiler, its GPUs described by a file that tests change."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.repository import ROOT

WAIT_SECONDS = 60.0
GIB = 1 << 30
WHOLE = {"memory_used": 10 * GIB, "memory_total": 80 * GIB, "utilisation": 50, "sm_mhz": 1980, "ecc": 0,
         "throttle": 0, "remap_failed": 0, "action": 0, "mig": 0}  # fmt: skip
PART = {"memory_used": GIB, "memory_total": 20 * GIB}


def build(folder: Path, *flags: str) -> Path:
    """Compiles the library into the folder. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler for the played NVIDIA library")
    name = "libnvidia-ml.so.1"
    source = Path(__file__).with_name("played_nvml.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", *flags, f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)], check=True
    )
    return folder


class PlayedGpus:
    """The machine's GPUs in the library, valid from the next `write` on."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.file = folder / "gpus.txt"
        self.calls = folder / "calls.txt"
        self.library = library
        self.lines: dict[str, object] = {}
        self._events = 0

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that loads this library."""
        return {
            "LD_LIBRARY_PATH": str(self.library),
            "PLAYED_NVML": str(self.file),
            "PLAYED_NVML_CALLS": str(self.calls),
        }

    def reset(self, count: int) -> None:
        """Sets `count` healthy GPUs without events."""
        self.lines = {"gpus": count}
        self._events = 0
        for gpu in range(count):
            self.lines[f"gpu{gpu}.uuid"] = uuid_of(gpu)
            self.lines |= {f"gpu{gpu}.{key}": value for key, value in WHOLE.items()}
        self.write()

    def split(self, gpu: int, parts: int) -> None:
        """Divides a GPU into parts (MIG); readings that parts do not have are removed."""
        self.lines[f"gpu{gpu}.mig"] = 1
        for key in ("utilisation", "ecc", "remap_failed"):
            self.lines.pop(f"gpu{gpu}.{key}", None)
        for part in range(parts):
            name = f"gpu{gpu}.mig{part}"
            self.lines |= {f"{name}.uuid": part_of(gpu, part), f"{name}.gi": 7 + part, f"{name}.ci": 0}
            self.lines |= {f"{name}.{key}": value for key, value in PART.items()}
        self.write()

    def set(self, **values: object) -> None:
        """Changes lines; two underscores in a name stand for a dot. None removes a line."""
        for key, value in values.items():
            name = key.replace("__", ".")
            if value is None:
                self.lines.pop(name, None)
            else:
                self.lines[name] = value
        self.write()

    def xid(self, gpu: int, xid: int, *instance: int) -> None:
        """Adds one Xid error. `instance`: number of the part."""
        self._events += 1
        self.lines[f"event.{self._events}"] = " ".join(map(str, (gpu, xid, *instance)))
        self.write()

    def write(self) -> None:
        """Writes the file atomically."""
        new = self.file.with_suffix(".new")
        new.write_text("".join(f"{key} {value}\n" for key, value in self.lines.items()))
        new.replace(self.file)

    def count_calls(self, name: str) -> int:
        """Number of calls of a function since `reset_calls`."""
        return [line.split()[0] for line in self.calls.read_text().splitlines()].count(name)

    def reset_calls(self) -> None:
        """Resets the counts of calls."""
        self.calls.write_text("")


def uuid_of(gpu: int) -> str:
    """UUID of a whole GPU."""
    return f"GPU-{gpu}{gpu}{gpu}{gpu}0000-1111-2222-3333-444444444444"


def part_of(gpu: int, part: int) -> str:
    """UUID of a part of a GPU."""
    return f"MIG-{gpu}{part}000000-5555-6666-7777-888888888888"


class Reader:
    """The process of tests/worker/hardware/reader.py."""

    def __init__(self, gpus: PlayedGpus) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        environment |= gpus.environment
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker.hardware.reader"],
            cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._orders, self._answers = process, process.stdin, process.stdout

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._orders.close()
        self._process.wait(WAIT_SECONDS)
        self._answers.close()

    def _ask(self, **order: Any) -> Any:
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        return json.loads(self._answers.readline())

    def open(self, visible: str | None = None, most: int | None = None) -> None:
        """Starts reading the GPUs of a process with this CUDA_VISIBLE_DEVICES."""
        self._ask(open={} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, most=most)

    def read(self) -> tuple[dict[str, Any], str | None]:
        """The readings, and the reason for a worker to stop, if any."""
        answer = self._ask(read=True)
        return answer["metrics"], answer["sick"]

    def until(self, holds: Callable[[dict[str, Any], str | None], bool]) -> tuple[dict[str, Any], str | None]:
        """Reads until `holds` is true."""
        deadline = time.monotonic() + WAIT_SECONDS
        found: tuple[dict[str, Any], str | None] = ({}, None)
        while time.monotonic() < deadline:
            if holds(*(found := self.read())):
                return found
            time.sleep(0.02)
        raise AssertionError(found)

    def first(self) -> dict[str, Any]:
        """Waits for the first readings."""
        return self.until(lambda metrics, _: bool(metrics))[0]

    def sickness(self) -> str | None:
        """Waits for a reason for the worker to stop."""
        return self.until(lambda _, sick: sick is not None)[1]

    def close(self) -> None:
        """Stops reading, if it was started."""
        self._ask(close=True)

    def pin(self, index: int, count: int, **environment: str) -> dict[str, str] | str:
        """The environment of a pinned worker, or the error."""
        return self._ask(pin=environment, index=index, count=count)
