"""A workbench per test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workbench import Workbench, workbench_in


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """A workbench whose commands are killed at the end of the test."""
    with workbench_in(tmp_path) as bench:
        yield bench
