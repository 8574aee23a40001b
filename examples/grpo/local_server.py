"""`openseer serve` as a child of the training, for as long as it lasts."""

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
"""Paths in the manifest are relative to it."""
STOP_SECONDS = 90.0


@contextmanager
def serving(job: Path, output: Path) -> Generator[tuple[str, Path]]:
    """Address and token file of a job that is served on this machine until the block ends. Logs are in `output`."""
    command = [str(Path(sys.executable).with_name("openseer")), "serve", str(job.resolve()), "--port", "0"]
    command += ["--output", str(output.resolve()), "--fresh", "--json"]
    # Whoever ends the training ends the server, too.
    signal.signal(signal.SIGTERM, _leave)
    # A session of its own: Ctrl-C is for the trainer, which then ends this.
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
