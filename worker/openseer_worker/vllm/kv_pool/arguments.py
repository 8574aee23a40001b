"""vLLM's settings for a KV pool, by backend; imports neither vLLM nor torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openseer_core.manifest.fleet import PoolBackend
from openseer_worker.kv_pool.places import EnginePool

BACKEND, FOLDER, MASTER, LEAST_TOKENS = "backend", "folder", "master", "least_tokens"
"""Keys of the connector's extra configuration: the fields of EnginePool, and the least number of tokens to fetch."""
KV_PLACE = "kv_place"
"""Key, in a request's extra arguments, of its folder in the pool. Requests without a folder do not use the pool."""
WORTH_TOKENS = 64
"""Least number of tokens to fetch; fewer tokens are computed, in a step that the engine makes anyway."""

_PLACES: Mapping[PoolBackend, Callable[[EnginePool], dict[str, str]]] = {
    "shared-directory": lambda pool: {FOLDER: str(pool.folder)},
    "mooncake": lambda pool: {MASTER: pool.master},
}
"""The settings of the connector for each backend."""


def pool_values(pool: EnginePool | None) -> dict[str, Any]:
    """Returns vLLM's arguments for an engine with this pool; empty without a pool."""
    if pool is None:
        return {}
    return {
        "kv_transfer_config": {
            "kv_connector": "PoolConnector",
            "kv_connector_module_path": "openseer_worker.vllm.kv_pool.connector",
            "kv_role": "kv_both",
            # With vLLM's default a request fails if its blocks do not arrive.
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {
                BACKEND: pool.backend,
                LEAST_TOKENS: WORTH_TOKENS,
                **_PLACES[pool.backend](pool),
            },
        },
        # This hash is the same in all processes of a fleet, also with different versions of Python.
        "prefix_caching_hash_algo": "sha256_cbor",
    }


def pool_of(extra: Mapping[str, Any]) -> EnginePool:
    """Returns the pool, from the connector's extra configuration."""
    return EnginePool(extra[BACKEND], Path(extra.get(FOLDER, "")), extra.get(MASTER, ""))
