"""Runs `openseer serve` as a child process of a training."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).parents[2]
"""The repository: the server's working directory, to which paths in the manifest are relative."""
STOP_SECONDS = 90.0
"""Time for the server to stop after SIGTERM, in seconds; then it is killed."""


@contextmanager
def serving(job: Path, output: Path) -> Generator[tuple[str, Path]]:
    """Serves a job on this machine until the block ends; yields the API's address and the token file.

    The server writes its logs to `output`. Raises RuntimeError if it does not start.
    """
    command = [str(Path(sys.executable).with_name("openseer")), "serve", str(job.resolve()), "--port", "0"]
    command += ["--output", str(output.resolve()), "--fresh", "--json"]
    # SIGTERM ends the training by SystemExit, so that the block ends and the server stops.
    signal.signal(signal.SIGTERM, _leave)
    # In its own session, so that Ctrl-C signals only the trainer, which then stops the server.
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"openseer serve ended with code {process.wait()}; its reason is above")
        address = json.loads(line)
        yield address["url"], Path(address["token_file"])
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
