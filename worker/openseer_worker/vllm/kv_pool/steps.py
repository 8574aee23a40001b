"""What the scheduler's side of the connector tells the worker's with each step."""

from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

IDLE_SECONDS = 0.005
"""An engine that has nothing to compute but waits for the pool looks again after this."""


@dataclass(slots=True)
class BlocksOf:
    """Blocks of one request: `hashes` name them in the pool's folder `place`, `ids` in the engine's KV cache. `first`:
    the number of the first of them in its context."""

    request: str
    place: str
    hashes: list[str]
    ids: list[int]
    first: int = 0


@dataclass(slots=True)
class PoolStep(KVConnectorMetadata):
    """One step. `loads`: blocks to fetch beside it; `saves`: blocks that are full, to keep; `cancelled`: requests that
    ended while theirs were being fetched; `idle`: the step computes nothing."""

    loads: list[BlocksOf] = field(default_factory=list[BlocksOf])
    saves: list[BlocksOf] = field(default_factory=list[BlocksOf])
    cancelled: list[str] = field(default_factory=list[str])
    idle: bool = False
