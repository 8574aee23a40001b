"""Counts the context tokens of a scripted engine by origin: its own cache, a simulated KV pool, or computation."""

from collections import defaultdict

from openseer_core.manifest.job import Scripted
from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.engine import EngineRequest

# Replaces a response's index in the key of its group's prompt.
_PROMPT = -1


class ScriptedContexts:
    """The engine's cached blocks of earlier requests, and the blocks of a pool.

    The cache drops the least recently stored blocks first. The pool has all full blocks of each response that has run,
    here or at another worker. During a fetch the scripted engine makes no steps; a real engine would.
    """

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted
        self._counts: defaultdict[str, float] = defaultdict(float)
        self.forget()

    def forget(self) -> None:
        """Empties the engine's own cache, as after new weights or sleep."""
        self._blocks: dict[tuple[str, int], int] = {}
        self._sum = 0

    def take_up(self, request: EngineRequest, context: int) -> float:
        """Returns the seconds until the engine has a request's context of `context` tokens. The cached part takes no
        time; the rest is fetched from the pool if the response has run before, and computed otherwise."""
        scripted, size, group = self._scripted, self._scripted.block_tokens, request.group
        full, resumed = (context - 1) // size * size, context > len(request.prompt)
        held = max(self._blocks.get((group, request.index), 0), self._blocks.get((group, _PROMPT), 0))
        cached = min(held * size, full)
        self._keep((group, _PROMPT), len(request.prompt) // size)
        counts, seconds = self._counts, 0.0
        counts["cached"] += cached
        if resumed and scripted.pool is not None and full > cached:
            fetched_bytes = (full - cached) * scripted.pool.bytes_per_token
            seconds = fetched_bytes / scripted.pool.bytes_per_second
            counts["fetched"] += full - cached
            counts["fetched_bytes"] += fetched_bytes
            counts["fetch_seconds"] += seconds
            cached = full
        computed = context - cached
        counts["computed"] += computed
        counts["recomputed"] += computed if resumed else 0
        computing = computed / scripted.prefill_tokens_per_second
        counts["compute_seconds"] += computing
        return seconds + computing

    def keep(self, request: EngineRequest, tokens: int, room: int) -> None:
        """Caches the full blocks among the first `tokens` of a context that leaves its slot. The cache has `room`
        blocks; it drops the oldest ones for them."""
        self._keep((request.group, request.index), tokens // self._scripted.block_tokens)
        self.shrink_to(room)

    def shrink_to(self, room: int) -> None:
        """Drops the oldest blocks until `room` are left."""
        while self._sum > room and self._blocks:
            self._sum -= self._blocks.pop(next(iter(self._blocks)))

    def metrics(self) -> dict[str, float | int | str]:
        """Returns the context tokens by origin, for heartbeats."""
        return ContextCounts.of(self._counts).metrics()

    def _keep(self, key: tuple[str, int], count: int) -> None:
        known = self._blocks.pop(key, 0)
        self._blocks[key] = max(count, known)
        self._sum += self._blocks[key] - known
