"""Runs the real `openseer` command in a separate working directory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from openseer_driver.run_folder import RunFolder

WAIT_SECONDS = 120.0
"""Timeout of waits that usually take a second or two, in seconds: on busy cores, processes start far more slowly."""
END_SECONDS = 240.0
"""Timeout of a command that ends by itself, in seconds."""
FORK_SERVER = "openseer_worker.fork_server"
"""Part of the command lines of the fork server and of its forks."""
CALM: dict[str, Any] = {"quantumTokens": 32, "leaseSeconds": 60, "checkpointSeconds": 0.1}
"""`rollout` of tests in which no lease may expire, even if a worker gets no CPU time for long."""


@contextmanager
def workbench_in(folder: Path) -> "Generator[Workbench]":
    """A workbench whose commands are killed at the end of the context."""
    workbench = Workbench(folder)
    yield workbench
    for process in workbench.started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass
class Workbench:
    """A folder with a manifest and prompts, and the commands that run in it."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])

    @property
    def run(self) -> RunFolder:
        """The folder of the run."""
        return RunFolder(self.folder / "runs/bench")

    def write(self, *, groups: int = 12, length: int = 300, **spec: Any) -> Path:
        """Writes a job on the scripted engine and its prompts; keyword arguments replace parts of the spec. Lengths
        vary from 1 to `length` tokens and are always the same."""
        lines = [
            json.dumps(
                {
                    "id": f"g{number}",
                    "prompt_token_ids": [5, 6, 7, number + 8],
                    "lengths": [1 + (number * 37 + index * 11) % length for index in range(4)],
                }
            )
            for number in range(groups)
        ]
        (self.folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
        base: dict[str, Any] = {
            "model": {
                "path": "none",
                "engine": "scripted",
                "scripted": {"stepSeconds": 0.004, "stepSecondsPerRequest": 0.0, "slots": 4},
            },
            "prompts": {"path": "prompts.jsonl"},
            "groupSize": 4,
            "sampling": {"maxTokens": 512, "forceLengths": True},
            "rollout": {"quantumTokens": 32, "leaseSeconds": 2, "checkpointSeconds": 0.1},
            "workers": {"replicas": 2, "gracePeriodSeconds": 10},
        }
        document = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "bench"},
            "spec": base | spec,
        }
        path = self.folder / "job.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command in a new session, as a shell starts a job."""
        process = subprocess.Popen(
            [sys.executable, "-c", "from openseer_local.main import main; main()", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def call(self, *arguments: str, timeout: float = END_SECONDS) -> subprocess.CompletedProcess[str]:
        """Runs the command to its end; `stdout` holds its complete output."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    def until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits until `holds` is true; fails after `seconds` with `what`."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.05)

    def results(self) -> int:
        """Number of written results."""
        return sum(1 for _ in self.run.results()) if self.run.results_file.exists() else 0

    def used_workers(self) -> set[str]:
        """Names of the workers in the written results."""
        lines = self.run.facts() if self.run.results_file.exists() else ()
        return {chunk.worker for line in lines for chunk in line.chunks}

    def descendants(self, process: subprocess.Popen[str]) -> dict[int, str]:
        """Process ids below a running command, with their command lines."""
        return self.below(process.pid)

    def below(self, pid: int) -> dict[int, str]:
        """Process ids below a process, with their command lines."""
        return {pid: line for pid, (_, line) in _below(pid).items()}

    def workers(self, process: subprocess.Popen[str]) -> list[int]:
        """Process ids of the workers below a running command, sorted."""
        below = _below(process.pid)
        nurseries = [pid for pid, (_, line) in below.items() if FORK_SERVER in line]
        return sorted(pid for pid, (parent, _) in below.items() if parent in nurseries)

    def run_with_a_death(self, seconds: float) -> None:
        """Runs job.yaml, kills a worker once both have results, and asserts that the run succeeds."""
        process = self.start("run", "job.yaml")
        self.until(lambda: len(self.used_workers()) == 2, "results of both workers", seconds)
        os.kill(self.workers(process)[0], signal.SIGKILL)
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, output

    def fork_servers(self, process: subprocess.Popen[str]) -> list[int]:
        """Process ids of the fork server below a running command, if it has one; its workers are forks of it."""
        below = _below(process.pid)
        named = [pid for pid, (_, line) in below.items() if FORK_SERVER in line]
        return [pid for pid in named if below[pid][0] not in named]

    def refuse_commands(self, process: subprocess.Popen[str]) -> None:
        """Forbids scripts (EVALSHA) to the clients of a running command's embedded store."""
        [title] = [line for line in self.descendants(process).values() if "unixsocket:" in line]
        redis: Any = Redis(unix_socket_path=title.split("unixsocket:")[1].split()[0])
        with redis:
            redis.acl_setuser("default", enabled=True, commands=["-evalsha"])

    def audit(self) -> dict[str, Any]:
        """The audit of the run, as JSON."""
        done = self.call("audit", "runs/bench", "--json")
        report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])["runs/bench"]
        return report

    def assert_whole(self, requests: int) -> None:
        """Asserts that every request has exactly one result and that the audit finds no problem."""
        keys = [line.key for line in self.run.results()]
        assert len(keys) == len(set(keys)) == requests
        report = self.audit()
        assert report["ok"], report
        assert report["requests"] == report["results"] == requests


def _below(pid: int) -> dict[int, tuple[int, str]]:
    """Parent and command line of each process below `pid`, from one snapshot of the process table."""
    table, found, parents = _processes(), dict[int, tuple[int, str]](), {pid}
    while parents:
        children = {pid for pid, (parent, _) in table.items() if parent in parents}
        found |= {pid: table[pid] for pid in children}
        parents = children
    return found


def _processes() -> dict[int, tuple[int, str]]:
    table: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            state, parent = stat.rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                table[int(entry.name)] = (int(parent), line)
    return table


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    return pid in _processes()
