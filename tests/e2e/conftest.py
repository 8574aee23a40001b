"""A workbench per test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """A workbench whose commands are ended with the test, and whose processes must be gone then."""
    workbench = Workbench(tmp_path)
    yield workbench
    for process in workbench.started:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
