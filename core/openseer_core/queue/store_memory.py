"""How full a store is."""

from dataclasses import dataclass

NEARLY_FULL = 0.9
"""Share of its memory from which on a store is told to be full: time is left to give it more."""
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class StoreMemory:
    """Bytes that a store uses, and that it may use at most (0: no limit of its own)."""

    used: int = 0
    limit: int = 0

    @property
    def is_nearly_full(self) -> bool:
        """Whether it may soon refuse to write."""
        return self.limit > 0 and self.used >= NEARLY_FULL * self.limit

    def problem(self) -> str:
        """What a person is told, and what to do."""
        return (
            f"Redis uses {self.used / _GIB:.2f} of its {self.limit / _GIB:.2f} GiB: at the limit nothing is leased "
            "until there is room; acknowledge or delete batches, or raise its maxmemory"
        )
