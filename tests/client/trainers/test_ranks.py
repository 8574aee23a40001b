"""A failure in the process that calls the API for all ranks is raised in each rank."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

from openseer_client.errors import WeightsError, error_of
from openseer_core.wire.problem import Problem
from openseer_core.wire.weights import Transaction
from tests.repository import ROOT

SECONDS = 120
"""Until two processes that wait for one another are given up."""


def test_an_error_of_the_first_process_is_raised_in_all_ranks(tmp_path: Path) -> None:
    told: list[list[str]] = []
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.client.trainers.ranks"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment | {"RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        told = [process.communicate(timeout=SECONDS)[0].splitlines() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert told[0] == told[1]
    kinds = [line.partition(" ")[0] for line in told[0]]
    assert kinds == ["OutputError", "OpenseerError", "ConflictError"]
    assert "ValidationError" in told[0][1]


def test_errors_keep_all_attributes_across_processes() -> None:
    refused = error_of(Problem(title="Conflict", status=409, detail="taken"), "POST /v1/batches")
    transaction = Transaction.model_validate(
        {"id": 1, "version": "v1", "previous": "v0", "phase": "failed", "mode": "keep", "attempt": 0, "seconds": {}}
        | {"waiting_for": ["w"], "message": "no", "workers": [], "started_at": 0.0}
    )
    for error in (refused, WeightsError(transaction, "not published")):
        found = pickle.loads(pickle.dumps(error))
        assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
