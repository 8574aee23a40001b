"""A simulated run with lost workers and moved requests, which each test may forge."""

import pytest

from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine
from tests.driver.audit.evidence import SHAPE, Evidence
from tests.driver.sample_runs import Simulation, result_line, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Simulation, RunFolder]:
    path = tmp_path_factory.mktemp("runs") / "run"
    return write_run(path, SHAPE), RunFolder(path)


@pytest.fixture
def evidence(run: tuple[Simulation, RunFolder]) -> Evidence:
    return Evidence(run[0].queue)


@pytest.fixture
def lines(run: tuple[Simulation, RunFolder]) -> list[ResultLine]:
    return [result_line(result) for result in run[0].results()]
