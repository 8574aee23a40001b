"""What a connector counts, in the form in which vLLM passes it from its processes to the engine: vLLM's own kind of
object, with core's names."""

from collections import Counter
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats


class PoolCounts(KVConnectorStats):
    """Counts since they were last taken, by the names of core's ContextCounts: those that a pool knows."""

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
