"""vLLM's settings for a KV pool, by backend; imports neither vLLM nor torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openseer_core.manifest.fleet import PoolBackend
from openseer_worker.kv_pool.places import EnginePool

BACKEND, FOLDER, MASTER, LEAST_TOKENS = "backend", "folder", "master", "least_tokens"
"""Keys of the connector's extra configuration: the fields of EnginePool, and the least number of tokens to fetch."""
KV_PLACE = "kv_place"
"""Key, in a request's extra arguments, of its folder in the pool; blocks of a request without one are not written."""
WORTH_TOKENS = 64
"""Least number of tokens to fetch; fewer are computed, in a step that the engine makes anyway."""

_PLACES: Mapping[PoolBackend, Callable[[EnginePool], dict[str, str]]] = {
    "shared-directory": lambda pool: {FOLDER: str(pool.folder)},
    "mooncake": lambda pool: {MASTER: pool.master},
}
"""The settings of each backend."""


def pool_values(pool: EnginePool | None) -> dict[str, Any]:
    """vLLM's arguments for an engine with this pool; empty without one."""
    if pool is None:
        return {}
    return {
        "kv_transfer_config": {
            "kv_connector": "PoolConnector",
            "kv_connector_module_path": "openseer_worker.vllm.kv_pool.connector",
            "kv_role": "kv_both",
            # vLLM's default ends a request whose blocks did not arrive.
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {
                BACKEND: pool.backend,
                LEAST_TOKENS: WORTH_TOKENS,
                **_PLACES[pool.backend](pool),
            },
        },
        # The same hash in all processes of a fleet, also with different versions of Python.
        "prefix_caching_hash_algo": "sha256_cbor",
    }


def pool_of(extra: Mapping[str, Any]) -> EnginePool:
    """The pool, from the connector's extra configuration."""
    return EnginePool(extra[BACKEND], Path(extra.get(FOLDER, "")), extra.get(MASTER, ""))
