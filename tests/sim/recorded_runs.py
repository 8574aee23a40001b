"""Run folders for the simulator: a synthetic run, with a manifest that states the step times of the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from openseer_driver.run_folder import RunFolder
from tests.driver.sample_runs import SMALL, Shape, write_run

SHAPE = replace(SMALL, groups=24, size=4, mean=120.0, max_tokens=8192, slots=8, logprobs=False)


def manifest(shape: Shape = SHAPE, **spec: Any) -> dict[str, Any]:
    """A job of the scripted engine, with the speed of the shape's workers."""
    scripted = {
        "stepSeconds": 1 / shape.rate,
        "stepSecondsPerRequest": 1 / shape.rate / 60,
        "slots": shape.slots,
        "kvBlocks": shape.blocks,
    }
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "recorded"},
        "spec": {
            "model": {"path": "models/any", "engine": "scripted", "scripted": scripted},
            "prompts": {"path": "prompts.jsonl"},
            "groupSize": shape.size,
            "sampling": {"maxTokens": shape.max_tokens, "forceLengths": True},
            "rollout": {"policy": shape.policy, "quantumTokens": shape.quantum},
            "workers": {"replicas": shape.workers},
        }
        | spec,
    }


def write_recorded(path: Path, shape: Shape = SHAPE, document: dict[str, Any] | None = None) -> RunFolder:
    """A run folder with the manifest beside its results."""
    write_run(path, shape)
    folder = RunFolder(path)
    folder.job_file.write_text(json.dumps(document or manifest(shape)))
    return folder
