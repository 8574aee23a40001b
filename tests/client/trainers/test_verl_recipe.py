"""The recipe for 8 GPUs: verl reads its settings, and the comparison reads verl's log."""

# verl and OmegaConf are no dependencies: they are Any here.
# pyright: reportMissingImports=false

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.repository import ROOT

RECIPE = ROOT / "examples/verl"
HAS_VERL = importlib.util.find_spec("verl") is not None


def compared(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "compare.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def logged(path: Path, *seconds: float) -> Path:
    """Writes a log of steps of these durations, as verl's file logger does."""
    steps = [{"step": number, "data": {"timing_s/step": length}} for number, length in enumerate(seconds)]
    path.write_text("".join(json.dumps(step) + "\n" for step in steps))
    return path


@pytest.mark.skipif(not HAS_VERL, reason="verl is not installed: `make trainers` (checked against 0.9.1)")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("way", "name"), [("stock", "vllm"), ("openseer", "openseer")])
def test_verl_reads_the_recipes_settings(way: str, name: str) -> None:
    from omegaconf import OmegaConf  # noqa: PLC0415
    from verl.utils.config import validate_config  # noqa: PLC0415

    environment = os.environ | {"PYTHON": sys.executable, "OPENSEER_URL": "http://127.0.0.1:8000"}
    command = [str(RECIPE / "train.sh"), way, "--cfg", "job"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    config: Any = OmegaConf.create(printed)
    assert config.actor_rollout_ref.rollout.name == name
    validate_config(config, use_reference_policy=False, use_critic=False)


def test_a_training_with_openseer_needs_a_url() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENSEER_URL"} | {"PYTHON": "echo"}
    command = [str(RECIPE / "train.sh"), "openseer"]
    begun = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (begun.returncode, begun.stdout) == (1, "")
    assert "OPENSEER_URL: the address that openseer serve prints" in begun.stderr


def test_the_comparison_uses_the_median_of_steps_after_the_first_two(tmp_path: Path) -> None:
    stock, ours = logged(tmp_path / "a", 900, 900, 60, 80, 70), logged(tmp_path / "b", 900, 900, 30, 35, 40)
    [line] = [line for line in compared(stock, ours).stdout.splitlines() if line.strip().startswith("step, s")]
    assert line.split()[2:] == ["70.00", "35.00", "2.00"]


def test_a_training_without_steps_is_named(tmp_path: Path) -> None:
    short = logged(tmp_path / "a", 900, 900)
    assert "has no step after the first 2" in compared(short, short).stderr
    assert (
        "run examples/verl/train.sh openseer first"
        in compared(logged(tmp_path / "c", 1, 1, 1), tmp_path / "openseer.jsonl").stderr
    )
