"""What the scheduler's side of the connector tells the worker's with each step."""

from dataclasses import dataclass, field, replace

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

    def split(self, count: int) -> "tuple[BlocksOf, BlocksOf]":
        """The first `count` of them, and the others."""
        head = replace(self, hashes=self.hashes[:count], ids=self.ids[:count])
        rest = replace(self, hashes=self.hashes[count:], ids=self.ids[count:], first=self.first + count)
        return head, rest


@dataclass(slots=True)
class PoolStep(KVConnectorMetadata):
    """One step. `loads`: blocks to fetch beside it; `saves`: blocks that are full, to keep; `gone`: requests
    whose blocks are theirs no longer, for they ended or were preempted; `idle`: the step computes nothing."""

    loads: list[BlocksOf] = field(default_factory=list[BlocksOf])
    saves: list[BlocksOf] = field(default_factory=list[BlocksOf])
    gone: list[str] = field(default_factory=list[str])
    idle: bool = False
