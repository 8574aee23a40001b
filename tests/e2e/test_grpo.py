"""The example training, on the real engine and through the real `openseer serve`: short, but with all its parts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.repository import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(1000)]

GRPO = ROOT / "examples/grpo"
SMALL = ["--groups", "2", "--group-size", "4"]
TRAIN_SECONDS = 800
FLOAT32_TOLERANCE = 1e-3
"""Between a log-probability of the engine and one of the trainer; seen: below 1e-4."""


def train(script: str, out: Path, *arguments: str) -> str:
    """What a training prints."""
    command = [sys.executable, str(GRPO / script), "--out", str(out), *SMALL, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENSEER_")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        printed, _ = process.communicate(timeout=TRAIN_SECONDS)
    finally:
        process.terminate()  # it ends its server on the way
        process.wait(60)
    assert process.returncode == 0, printed
    return printed


def test_two_iterations_through_a_server_of_its_own(tmp_path: Path) -> None:
    arguments = ["--iterations", "2", "--spare-groups", "1", "--eval-every", "2", "--eval-prompts", "8"]
    train("train.py", tmp_path, *arguments)
    rows: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert len({row["version"] for row in rows}) == 3
    # Each worker had the weights before it sampled, and what it said of each token is what the trainer says.
    assert all(row["canary_difference"] < FLOAT32_TOLERANCE for row in rows)
    for row in rows[:2]:
        assert 0 < row["logprob_difference_max"] < FLOAT32_TOLERANCE
        assert row["rollout/groups_valid"] >= 2
        assert row["rollout/requests_infra_failed"] == 0
        assert row["gradient_norm"] > 0
        assert {"publish", "rollout", "reward", "train"} <= row["seconds"].keys()
    assert rows[0]["held_out_prompts"] == rows[2]["held_out_prompts"] == 8
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {row["version"] for row in rows}


def test_trls_trainer_learns_from_the_same_fleet(tmp_path: Path) -> None:
    printed = train("train_trl.py", tmp_path, "--steps", "2")
    steps = [line for line in printed.splitlines() if "'grad_norm'" in line]
    assert len(steps) == 2, printed
    published = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert [name.rsplit("-", 1)[1] for name in published] == ["0", "1"]
    first, second = ((tmp_path / "weights" / name / "model.safetensors").read_bytes() for name in published)
    assert first != second
