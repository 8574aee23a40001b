"""The message from the scheduler's side of the connector to the worker's side, one per step."""

from dataclasses import dataclass, field, replace

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

IDLE_SECONDS = 0.005
"""Poll interval of an engine that only waits for the pool, in seconds."""


@dataclass(slots=True)
class BlocksOf:
    """Blocks of one request: their `hashes` in the pool's folder `place`, and their `ids` in the engine's KV cache.
    `first`: index of the first of these blocks in the request's context."""

    request: str
    place: str
    hashes: list[str]
    ids: list[int]
    first: int = 0

    def split(self, count: int) -> "tuple[BlocksOf, BlocksOf]":
        """Returns the first `count` blocks, and the others."""
        head = replace(self, hashes=self.hashes[:count], ids=self.ids[:count])
        rest = replace(self, hashes=self.hashes[count:], ids=self.ids[count:], first=self.first + count)
        return head, rest


@dataclass(slots=True)
class PoolStep(KVConnectorMetadata):
    """The connector's work in one step. `loads`: blocks to fetch beside the step; `saves`: full blocks to write;
    `gone`: requests that have lost their blocks, because they ended or were preempted; `idle`: the step computes no
    tokens."""

    loads: list[BlocksOf] = field(default_factory=list[BlocksOf])
    saves: list[BlocksOf] = field(default_factory=list[BlocksOf])
    gone: list[str] = field(default_factory=list[str])
    idle: bool = False
