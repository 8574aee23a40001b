"""What groups' other responses generate elsewhere, fetched from the store and handed to the engine to draft from.

A task beside the worker's loop, off every path that a token takes. Drafts are optional: when the store is away, the
engine goes on with what it knows.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from openseer_core.errors import LoadError, StoreError
from openseer_core.ids import GroupId
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.tokens import ITEM_BYTES, count_items
from openseer_store.port import WorkerStore
from openseer_worker.engine import DraftNews, Engine
from openseer_worker.hardware.telemetry import Figures
from openseer_worker.running import PROBE_INDEX, RunningRequests

log = logging.getLogger(__name__)

FETCH_BYTES = 2**18
"""Most that one fetch brings: the engine takes it in within some milliseconds, between two steps."""
KEEP_SECONDS = 30.0
"""A group is still kept up for so long after its last request left: the next one of it often comes soon."""
PROBE_WEIGHT = 2.0
"""A probe's speed counts so much: what it shows orders all that waits."""
LARGEST_WEIGHT = 4.0
"""When nothing waits, a request whose rest is expected to be long counts up to so much: the batch waits for it."""


@dataclass(slots=True)
class _Group:
    """A group that is kept up. `known`: tokens known of each response; `asked_at`: of the fetch before, 0 for none."""

    held_at: float
    earlier: bool
    asked_at: float = 0.0
    known: dict[int, int] = field(default_factory=dict[int, int])


class Sharing:
    """One worker's news of its groups."""

    def __init__(
        self, store: WorkerStore, engine: Engine, held: RunningRequests, *, seconds: float, earlier: bool
    ) -> None:
        self._store = store
        self._engine = engine
        self._held = held
        self._seconds = seconds
        self._earlier = earlier
        self._groups: dict[GroupId, _Group] = {}
        self._weights: dict[str, float] = {}
        self._tokens = 0
        self._lag = 0.0
        self._trouble = False

    async def run(self) -> None:
        """Fetches every checkpoint interval until cancelled; ends at once for an engine that does not draft."""
        while self._engine.drafts:
            await asyncio.sleep(self._seconds)
            try:
                await self._share()
            except (StoreError, LoadError) as error:
                if not self._trouble:
                    log.warning("no news of siblings for now: %s", error)
                self._trouble = True
            else:
                self._trouble = False

    def figures(self) -> Figures:
        """shared_tokens and shared_bytes so far, share_lag: the age in seconds of the latest; empty without drafts."""
        if not self._engine.drafts:
            return {}
        shared_bytes = self._tokens * ITEM_BYTES
        return {"shared_tokens": self._tokens, "shared_bytes": shared_bytes, "share_lag": round(self._lag, 3)}

    async def _share(self) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        released = self._look(began)
        asks = self._asks()
        found = await self._store.siblings(asks, FETCH_BYTES) if asks else []
        news = DraftNews(importance=importance(self._held), released=[str(group) for group in released])
        for told in found:
            self._note(told, news)
        if news.rows or news.earlier or news.released or news.importance != self._weights:
            await self._engine.feed(news)
            self._weights = news.importance
        # Nothing that came now was there when the same group was asked for before.
        since = [group.asked_at for told in found if told.news and (group := self._groups[told.group]).asked_at]
        if since:
            self._lag = now() - min(since)
        for ask in asks:
            self._groups[ask.group].asked_at = began

    def _look(self, now: float) -> list[GroupId]:
        """Takes in what is held; the groups that are not to be kept up any longer."""
        for group, generated in self._held.members().items():
            kept = self._groups.get(group)
            if kept is None:
                kept = self._groups[group] = _Group(now, self._earlier)
            kept.held_at = now
            for index, tokens in generated.items():
                kept.known[index] = max(tokens, kept.known.get(index, 0))
        gone = [group for group, kept in self._groups.items() if now - kept.held_at > KEEP_SECONDS]
        for group in gone:
            del self._groups[group]
        return gone

    def _asks(self) -> list[SiblingQuery]:
        """For every group that is held: all its responses that are not."""
        asks: list[SiblingQuery] = []
        for group, generated in self._held.members().items():
            kept, size = self._groups[group], self._held.view(group).size
            known = tuple((index, kept.known.get(index, 0)) for index in range(size) if index not in generated)
            if known or kept.earlier:
                asks.append(SiblingQuery(group, known, kept.earlier))
        return asks

    def _note(self, told: Siblings, news: DraftNews) -> None:
        """Adds to the news what the store told, and remembers from where to ask on."""
        kept, name = self._groups[told.group], str(told.group)
        if told.earlier is not None:
            kept.earlier = False
            if told.earlier:
                news.earlier.append((name, list(told.earlier)))
        for index, position, tokens in told.news:
            count = count_items(tokens)
            news.rows.append((name, index, position, tokens))
            kept.known[index] = position + count
            self._tokens += count


def importance(held: RunningRequests) -> dict[str, float]:
    """How much each running response's speed counts, where that is not 1.

    While others wait, a probe counts more. When nothing waits any more, it is what a group's estimate leaves to do,
    beside the mean of all.
    """
    running = held.running()
    if held.pulse is None or held.pulse.waiting:
        return {one.key: PROBE_WEIGHT for one in running if one.claim.request.index == PROBE_INDEX}
    rests = {one.key: max(0, estimate(held.view(one.claim.request.group)) - one.generated) for one in running}
    mean = sum(rests.values()) / max(1, len(rests))
    return {key: min(LARGEST_WEIGHT, rest / mean) for key, rest in rests.items() if rest > mean}
