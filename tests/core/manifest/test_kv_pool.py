"""A KV pool, real or simulated by the scripted engine, is refused with settings that conflict with it."""

from typing import Any

import pytest

from openseer_core.errors import ManifestError
from openseer_core.manifest.parse import parse_job
from tests.core.manifest.test_job import manifest

POOL = {"backend": "shared-directory", "path": "/mnt/kv"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"kvPool": {"backend": "shared-directory"}}, "spec.kvPool: none given, allowed: exactly one of path, pvc"),
        ({"kvPool": {**POOL, "template": {"spec": {}}}}, "spec.kvPool.template: backend shared-directory has no pod"),
        ({"kvPool": {"path": "/kv"}}, "spec.kvPool.path: not used with backend none"),
        (
            {"kvPool": {"backend": "mooncake", "pvc": {"claimName": "kv", "path": "x"}}},
            "spec.kvPool.pvc: not used with backend mooncake",
        ),
        (
            {"kvPool": POOL, "model": {"path": "m", "engineArgs": {"kv_transfer_config": {}}}},
            "spec.model.engineArgs.kv_transfer_config: conflicts with spec.kvPool",
        ),
        ({"kvPool": POOL, "model": {"path": "m", "engine": "scripted"}}, "spec.kvPool.backend: the scripted engine"),
        (
            {"model": {"path": "m", "scripted": {"pool": {"bytesPerToken": 10, "bytesPerSecond": 200_000}}}},
            "spec.model.scripted.pool.bytesPerSecond: found 200000, allowed: more than 200000",
        ),
        (
            {
                "mode": "serve",
                "prompts": None,
                "model": {"path": "m", "scripted": {"pool": {"bytesPerToken": 10, "bytesPerSecond": 1e9}}},
            },
            "spec.model.scripted.pool: not used in mode serve",
        ),
        (
            {"kvPool": POOL, "model": {"path": "m", "engineArgs": {"decode_context_parallel_size": 2}}},
            "spec.model.engineArgs.decode_context_parallel_size: found 2, allowed with spec.kvPool: 1",
        ),
        (
            {"kvPool": POOL, "workers": {"parallelism": {"pipeline": 2}}},
            "spec.workers.parallelism.pipeline: found 2, allowed with spec.kvPool: 1",
        ),
    ],
)
def test_a_setting_that_conflicts_with_a_pool_is_reported(spec: dict[str, Any], expected: str) -> None:
    with pytest.raises(ManifestError) as refused:
        parse_job(manifest(spec), "job")
    [problem] = refused.value.problems
    assert problem.startswith(expected)
