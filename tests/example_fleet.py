"""`openseer serve examples/grpo/job.yaml`: the tiny model on one real engine, for programs in other processes."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.repository import ROOT

STOP_SECONDS = 300


def clean_environment() -> dict[str, str]:
    """This process's environment without openseer's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENSEER_")}


@contextmanager
def example_fleet(output: Path, *arguments: str) -> Generator[dict[str, str]]:
    """Runs the server; yields the environment of a client. `arguments`: further arguments of the command."""
    openseer = str(Path(sys.executable).with_name("openseer"))
    command = [
        openseer,
        "serve",
        "examples/grpo/job.yaml",
        "--port",
        "0",
        "--json",
        "--output",
        str(output),
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        yield {"OPENSEER_URL": found["url"], "OPENSEER_TOKEN_FILE": found["token_file"]}
    finally:
        process.terminate()
        process.communicate(timeout=STOP_SECONDS)
