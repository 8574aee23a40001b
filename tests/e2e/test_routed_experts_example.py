"""The example training on a mixture of experts, through the real `openseer serve`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_fleet import clean_environment
from tests.repository import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 2
TRAIN_SECONDS, STOP_SECONDS = 600, 120
BFLOAT16_TOLERANCE = 0.06
"""Of the mean difference through the same experts; seen: up to 0.02, and through the trainer's own 0.03 to 0.06."""


def test_replayed_routes_bring_the_trainer_closer_to_the_engine(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/routed-experts/train.py"), "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--steps", str(STEPS)],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=TRAIN_SECONDS)
    finally:
        process.terminate()  # it also ends its server
        process.wait(STOP_SECONDS)
    assert process.returncode == 0, printed
    steps = json.loads((tmp_path / "mismatch.json").read_text())["steps"]
    assert [step["step"] for step in steps] == list(range(STEPS))
    assert any(step["choices_that_differ"] for step in steps), "no expert differed, so the replay was not tested"
    for step in steps:
        assert step["tokens"] == 4 * 4 * 24
        assert 0 < step["replayed"]["mean"] < BFLOAT16_TOLERANCE
        if step["choices_that_differ"]:
            assert step["replayed"]["mean"] < step["free"]["mean"]
    assert "</svg>" in (tmp_path / "mismatch.svg").read_text()
