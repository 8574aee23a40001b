"""Driver and worker processes as pods run them, in a separate folder, against the test's store."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from tests.e2e.workbench import Workbench

REQUESTS = 24 * 4
MODEL = {
    "path": "none",
    "engine": "scripted",
    "scripted": {"stepSeconds": 0.004, "stepSecondsPerRequest": 0.0, "slots": 16},
}
"""One worker runs the job in about four seconds."""


@dataclass
class Pod:
    """One process; `log_file` holds its output."""

    process: subprocess.Popen[bytes]
    log_file: Path
    termination_file: Path

    @property
    def log(self) -> str:
        """The output so far."""
        return self.log_file.read_text()

    def wait(self, seconds: float = 120.0) -> int:
        """Waits for the end and returns the exit code."""
        return self.process.wait(timeout=seconds)

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of its web server's answer."""
        found = re.search(r"probes and metrics on port (\d+)", self.log)
        assert found, self.log
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@dataclass
class PodBench:
    """`bench` writes the job and reads its folder; `url`: address of the store, which may start later."""

    bench: Workbench
    url: str
    pods: list[Pod] = field(default_factory=list[Pod])
    files: list[IO[bytes]] = field(default_factory=list[IO[bytes]])

    def write(self, *, groups: int = 24, **spec: Any) -> dict[str, Any]:
        """The job, as job.json; keyword arguments replace parts of the spec."""
        document: dict[str, Any] = yaml.safe_load(self.bench.write(groups=groups, model=MODEL, **spec).read_text())
        self.job_file.write_text(json.dumps(document))
        return document

    @property
    def job_file(self) -> Path:
        """The file that the operator mounts."""
        return self.bench.folder / "job.json"

    def driver(self, *arguments: str, output: str = "runs/bench") -> Pod:
        """Starts the driver."""
        return self._start("openseer_driver.main", "--output", output, "--http-port", "0", *arguments)

    def worker(self, index: int = 0) -> Pod:
        """Starts a worker."""
        return self._start("openseer_worker.main", "--index", str(index))

    def until_results(self, count: int) -> None:
        """Waits until `count` results are written."""
        self.bench.until(lambda: self.bench.results() >= count, f"{count} results")

    def run_record(self) -> dict[str, Any]:
        """run.json."""
        return json.loads(self.bench.run.run_file.read_text())

    def close(self) -> None:
        """Ends all running processes."""
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.end(signal.SIGKILL)
        for file in self.files:
            file.close()

    def _start(self, module: str, *arguments: str) -> Pod:
        place = self.bench.folder / f"pod-{len(self.pods)}"
        log_file, termination_file = place.with_suffix(".log"), place.with_suffix(".termination")
        self.files.append(log_file.open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--job", str(self.job_file), *arguments],
            cwd=self.bench.folder,
            env={**os.environ, "OPENSEER_STORE_URL": self.url, "OPENSEER_TERMINATION_LOG": str(termination_file)},
            stdout=self.files[-1],
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pods.append(Pod(process, log_file, termination_file))
        return self.pods[-1]
