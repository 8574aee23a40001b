"""The connector's counts, in an object that vLLM passes from its processes to the engine."""

from collections import Counter
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats


class PoolCounts(KVConnectorStats):
    """Counts of a pool's use since the last `take_counts`, by the names of core's ContextCounts."""

    def add(self, name: str, amount: float) -> None:
        """Adds `amount` to a count."""
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
