"""What vLLM is told of a KV pool, by backend; imports neither vLLM nor torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openseer_core.manifest.fleet import PoolBackend
from openseer_worker.kv_pool.places import EnginePool

BACKEND, FOLDER, MASTER, LEAST_TOKENS = "backend", "folder", "master", "least_tokens"
"""Names in the connector's extra configuration: the pool as EnginePool has it, and the fewest tokens worth a fetch."""
KV_PLACE = "kv_place"
"""Name, among a request's extra arguments, of its folder in the pool; a request without one is not kept."""
WORTH_TOKENS = 64
"""A context of fewer tokens is computed: the engine makes a step anyway, while it would wait for a fetch."""

_PLACES: Mapping[PoolBackend, Callable[[EnginePool], dict[str, str]]] = {
    "shared-directory": lambda pool: {FOLDER: str(pool.folder)},
    "mooncake": lambda pool: {MASTER: pool.master},
}
"""What a backend's part of the connector must know."""


def pool_values(pool: EnginePool | None) -> dict[str, Any]:
    """Arguments of an engine with this pool; none without one."""
    if pool is None:
        return {}
    return {
        "kv_transfer_config": {
            "kv_connector": "PoolConnector",
            "kv_connector_module_path": "openseer_worker.vllm.kv_pool.connector",
            "kv_role": "kv_both",
            # vLLM's default ends a request whose blocks did not come.
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {
                BACKEND: pool.backend,
                LEAST_TOKENS: WORTH_TOKENS,
                **_PLACES[pool.backend](pool),
            },
        },
        # The same in all processes of a fleet, whatever versions of Python they run.
        "prefix_caching_hash_algo": "sha256_cbor",
    }


def pool_of(extra: Mapping[str, Any]) -> EnginePool:
    """The pool again, by the connector's extra configuration."""
    return EnginePool(extra[BACKEND], Path(extra.get(FOLDER, "")), extra.get(MASTER, ""))
