"""The workload of a chaos run: a job on scripted or real engines, and groups of a trainer or of a prompts file."""

import json
from pathlib import Path
from typing import Any, Literal

from openseer_client import Group
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from tests.chaos.schedule import POOL_WORKERS, WORKERS, Mode
from tests.repository import ROOT

EngineName = Literal["scripted", "vllm", "vllm-pool", "vllm-alone"]
"""vllm-pool: with a KV pool, many moves and temperature 0; vllm-alone: the same responses by one worker alone."""
WORKERS_OF: dict[EngineName, int] = {"scripted": WORKERS, "vllm": WORKERS, "vllm-pool": POOL_WORKERS, "vllm-alone": 1}
JOB = "chaos"
GROUP_SIZE = 4
_GREEDY_GROUP_SIZE = 1
"""1, because siblings at temperature 0 are equal: both workers soon have their KV and would fetch none."""
GROUPS_PER_SECOND: dict[str, float] = {"scripted": 4.0, "vllm": 0.4}
"""Approximate groups per second of a fleet without faults, by engine."""
LEASE_SECONDS = 2.0
RETRIES = 3
MAX_TOKENS = 480


_VLLM: dict[str, Any] = {
    "model": {"path": str(ROOT / "examples/tiny-model/model"), "dtype": "float32"},
    "sampling": {"maxTokens": MAX_TOKENS, "ignoreEos": True},
    "speculation": {"enabled": True},
}
_GREEDY: dict[str, Any] = {**_VLLM, "sampling": {**_VLLM["sampling"], "temperature": 0.0}}
_GREEDY_ENGINES = ("vllm-pool", "vllm-alone")
_ENGINES: dict[EngineName, dict[str, Any]] = {
    "scripted": {
        "model": {
            "path": "none",
            "engine": "scripted",
            "scripted": {"stepSeconds": 0.01, "stepSecondsPerRequest": 0.0, "slots": 8},
        },
        "sampling": {"maxTokens": MAX_TOKENS},
    },
    "vllm": _VLLM,
    "vllm-pool": {
        **_GREEDY,
        # A KV cache for the running requests only: a waiting response fetches its context from the pool.
        "model": {**_GREEDY["model"], "engineArgs": {"num_gpu_blocks_override": 44, "max_model_len": 512}},
        "kvPool": {"backend": "mooncake", "maxGigabytes": 1},
    },
    "vllm-alone": _GREEDY,
}


def write_job(folder: Path, mode: Mode, engine: EngineName) -> RolloutJob:
    """Writes the manifest as job.json into the folder."""
    spec: dict[str, Any] = {
        **_ENGINES[engine],
        "mode": mode,
        "groupSize": _GREEDY_GROUP_SIZE if engine in _GREEDY_ENGINES else GROUP_SIZE,
        "rollout": {
            "quantumTokens": 32 if engine == "vllm-pool" else 64,
            "leaseSeconds": LEASE_SECONDS,
            "checkpointSeconds": 0.1,
            # Without probes all estimates are equal, so requests take turns and continue at either worker.
            "probe": engine != "vllm-pool",
        },
        "workers": {
            "replicas": WORKERS_OF[engine],
            "maxInflight": 2 if engine == "vllm-pool" else 8,
            "gracePeriodSeconds": 10,
        },
        "failurePolicy": {"requestRetries": RETRIES},
    }
    if mode == "batch":
        spec["prompts"] = {"path": "prompts.jsonl"}
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": JOB},
        "spec": spec,
    }
    (folder / "job.json").write_text(json.dumps(document))
    return parse_job(document, "chaos")


def group_count(seconds: float, job: RolloutJob) -> int:
    """The number of groups that keep the fleet busy for `seconds`."""
    groups = max(4, round(seconds * GROUPS_PER_SECOND[job.spec.model.engine]))
    return groups * GROUP_SIZE // job.spec.group_size


def prompt_ids(number: int) -> list[int]:
    """The prompt of a group."""
    return [5, 6, 7, 8 + number // 50, 8 + number % 50]


def write_prompts(folder: Path, groups: int) -> None:
    """The prompts file of a batch job."""
    lines = [json.dumps({"id": f"g{number}", "prompt_token_ids": prompt_ids(number)}) for number in range(groups)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")


def trainer_groups(first: int, count: int) -> list[Group]:
    """The groups that a trainer uploads."""
    return [Group(id=f"g{n}", prompt_token_ids=prompt_ids(n)) for n in range(first, first + count)]
