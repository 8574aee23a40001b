"""The workers that claim: when each was last seen, and how many tokens one request may have there."""

from openseer_core.queue.kv_blocks import UNLIMITED


class Claimers:
    """Fresh workers by name. Their limits differ where their KV caches do; a worker whose limit is not known may take
    anything."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._limits: dict[str, int] = {}

    def count_in(self, name: str, limit: int | None, now: float) -> None:
        """The worker claims; `limit`: tokens of one request there, prompt and response together."""
        self._seen[name] = now
        self._limits[name] = UNLIMITED if limit is None else limit

    def count_out(self, name: str) -> None:
        """It does not: it drains, is sick, or left."""
        self._seen.pop(name, None)
        self._limits.pop(name, None)

    def count_out_silent(self, before: float) -> None:
        """Those that were last seen before then are gone."""
        for name in [name for name, seen in self._seen.items() if seen < before]:
            self.count_out(name)

    def limit(self, name: str) -> int:
        """The worker's limit; 0 while it does not claim."""
        return self._limits.get(name, 0)

    @property
    def largest(self) -> int:
        """The largest limit; 0 without workers."""
        return max(self._limits.values(), default=0)

    def peers(self, limit: int) -> int:
        """How many workers may be given whatever one of this limit may."""
        return sum(other >= limit for other in self._limits.values())
