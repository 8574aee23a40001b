"""Where a scripted engine's contexts come from, counted: its own cache, a KV pool that it plays, or computing."""

from collections import defaultdict

from openseer_core.manifest.job import Scripted
from openseer_core.worker.context_metrics import ContextCounts
from openseer_worker.engine import EngineRequest

# Stands for a response's index where the prompt of its group is meant.
_PROMPT = -1


class ScriptedContexts:
    """Blocks of earlier requests that nobody has taken since, the longest unused first to go; and the pool's.

    The pool holds all full blocks of each response that has run, here or at another worker. A fetch takes the engine's
    time as computing does: real engines make their steps meanwhile.
    """

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted
        self._counts: defaultdict[str, float] = defaultdict(float)
        self.forget()

    def forget(self) -> None:
        """The engine's own cache is empty, as after new weights or sleep."""
        self._blocks: dict[tuple[str, int], int] = {}
        self._sum = 0

    def take_up(self, request: EngineRequest, context: int) -> float:
        """The seconds in which the engine gets the context of a request, of so many tokens: what its cache holds at
        once, the rest from the pool where the response has run before, else by computing it."""
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
        """Holds the first so many tokens of a response that leaves its slot, as the newest, while `room` blocks do."""
        self._keep((request.group, request.index), tokens // self._scripted.block_tokens)
        self.shrink_to(room)

    def shrink_to(self, room: int) -> None:
        """Lets go of all but `room` blocks."""
        while self._sum > room and self._blocks:
            self._sum -= self._blocks.pop(next(iter(self._blocks)))

    def metrics(self) -> dict[str, float | int | str]:
        """For heartbeats."""
        return ContextCounts.of(self._counts).metrics()

    def _keep(self, key: tuple[str, int], count: int) -> None:
        known = self._blocks.pop(key, 0)
        self._blocks[key] = max(count, known)
        self._sum += self._blocks[key] - known
