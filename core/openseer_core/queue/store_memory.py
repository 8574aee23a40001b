"""The memory use of a store."""

from dataclasses import dataclass

NEARLY_FULL = 0.9
"""Share of a store's memory limit from which it is reported as nearly full, so that the limit can be raised before
writes are refused."""


@dataclass(frozen=True, slots=True)
class StoreMemory:
    """Memory that a store uses, and its limit (0: the store has no limit), in bytes."""

    used: int = 0
    limit: int = 0

    @property
    def is_nearly_full(self) -> bool:
        """Whether the store may soon refuse writes."""
        return self.limit > 0 and self.used >= NEARLY_FULL * self.limit

    def problem(self) -> str:
        """The message for users, with the remedy."""
        return (
            f"Redis uses {_size(self.used)} of its {_size(self.limit)}: at the limit no request is leased; "
            "acknowledge or delete batches, or raise its maxmemory (a managed Redis: raise "
            "spec.store.resources.limits.memory, of which maxmemory is three quarters, and restart its pod)"
        )


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
