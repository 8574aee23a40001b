"""What a connector counts, in the form in which vLLM passes it from its processes to the engine."""

from collections import Counter
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats

COUNTS = ("loaded_tokens", "load_bytes", "load_seconds", "failed_loads", "saved_blocks", "save_bytes", "unsaved_blocks")
"""Tokens whose KV was fetched, its bytes, and seconds of all fetches; fetches that failed; blocks kept, their bytes,
and blocks that were not kept because the pool was slow, full or out."""


class PoolCounts(KVConnectorStats):
    """Counts since they were last taken, by the names of COUNTS."""

    def add(self, name: str, amount: float) -> None:
        """Counts something."""
        if amount:
            self.data[name] = self.data.get(name, 0) + amount

    def reset(self) -> None:
        self.data = {}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        self.data = dict(Counter(self.data) + Counter(other.data))
        return self

    def reduce(self) -> dict[str, Any]:
        return dict(self.data)

    def is_empty(self) -> bool:
        return not self.data
