"""A real `openseer serve` in a workbench, and the commands that call it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openseer_client import Client
from tests.e2e.workbench import WAIT_SECONDS, Workbench

SCRIPTED: dict[str, Any] = {
    "model": {
        "path": "none",
        "engine": "scripted",
        "scripted": {"stepSeconds": 0.004, "stepSecondsPerRequest": 0.0, "slots": 4},
    },
    "groupSize": 4,
    "sampling": {"maxTokens": 512},
    "rollout": {"quantumTokens": 32, "leaseSeconds": 2, "checkpointSeconds": 0.1},
    "workers": {"replicas": 2, "gracePeriodSeconds": 10},
}


@dataclass
class Server:
    """One serving job. `port`: 0 until it has been started."""

    bench: Workbench
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def write(self, **spec: Any) -> Path:
        """Writes the manifest; keyword arguments replace parts of the spec."""
        document = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "bench"},
            "spec": {"mode": "serve", **SCRIPTED, **spec},
        }
        path = self.bench.folder / "job.yaml"
        path.write_text(json.dumps(document))
        return path

    def prompts(self, groups: int, first: int = 0) -> str:
        """Writes a file of groups and returns its name."""
        lines = [
            json.dumps({"id": f"g{n}", "prompt_token_ids": [5, 6, 7, n + 8]}) for n in range(first, first + groups)
        ]
        name = f"groups-{first}.jsonl"
        (self.bench.folder / name).write_text("\n".join(lines) + "\n")
        return name

    def start(self) -> None:
        """Starts the command and returns when the API listens; later starts use the same address."""
        process = self.bench.start("serve", "job.yaml", "--json", "--port", str(self.port))
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("{"):
                self.port = int(json.loads(line)["url"].rsplit(":", 1)[1])
                self.process = process
                return
        raise AssertionError("".join(lines))

    @property
    def url(self) -> str:
        """URL of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token_file(self) -> Path:
        """The file with the server's token."""
        return self.bench.folder / "runs/bench/token"

    def client(self) -> Client:
        """A client of the server."""
        return Client(self.url, token_file=self.token_file)

    def words(self, *arguments: str) -> list[str]:
        """A command line with address and token."""
        return [*arguments, "--url", self.url, "--token-file", str(self.token_file)]

    def call(self, *arguments: str, code: int = 0) -> str:
        """Runs a command against the server and returns its output."""
        done = self.bench.call(*self.words(*arguments))
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def submit_and_wait(self, groups: str, seconds: float) -> None:
        """Submits a file and waits until its batch is complete."""
        done = self.bench.call(*self.words("submit", groups, "--wait"), timeout=seconds)
        assert done.returncode == 0, done.stdout

    def json(self, *arguments: str) -> Any:
        """Runs a command with --json and returns the parsed output."""
        return json.loads(self.call(*arguments, "--json").strip().splitlines()[-1])

    def results(self, name: str) -> list[dict[str, Any]]:
        """Entries of kind result in a file that `openseer results` writes; the last line may be incomplete."""
        lines = [line for line in (self.bench.folder / name).read_text().splitlines(True) if line.endswith("\n")]
        return [entry for entry in map(json.loads, lines) if entry["kind"] == "result"]

    def until_ready(self, workers: int = 2, seconds: float = WAIT_SECONDS) -> None:
        """Waits until `workers` workers may claim."""
        with self.client() as client:
            self.bench.until(lambda: client.job().workers_ready == workers, f"{workers} workers", seconds)

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        assert self.process is not None
        return self.bench.workers(self.process)
