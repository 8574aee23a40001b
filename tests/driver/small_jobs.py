"""A small batch job for tests of the driver: groups of two responses of at most nine tokens, scripted engine."""

from typing import Any

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job


def small_job(**rollout: Any) -> RolloutJob:
    """The job. `rollout`: fields of spec.rollout."""
    spec: dict[str, Any] = {
        "model": {"path": "none", "engine": "scripted"},
        "prompts": {"path": "prompts.jsonl"},
        "groupSize": 2,
        "sampling": {"maxTokens": 9, "logprobs": "none"},
        "rollout": rollout,
        "workers": {"replicas": 1},
    }
    manifest = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "job"}, "spec": spec}
    return parse_job(manifest, "test")
