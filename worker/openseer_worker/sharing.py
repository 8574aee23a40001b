"""Fetches siblings' tokens from the store, from which the engine drafts.

It is a separate task of the event loop; no token waits for it. While the store is unreachable, the engine drafts from
the tokens that it has. A response without new tokens (it waits, or it has ended) is queried at doubling intervals, up
to QUIET_SECONDS.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from openseer_core.errors import LoadError, StoreError
from openseer_core.ids import PROBE_INDEX, GroupId
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.tokens import ITEM_BYTES, count_items
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.port import WorkerStore
from openseer_worker.engine import DraftNews, DraftTokens, Engine
from openseer_worker.pace import CheckpointPace
from openseer_worker.running import RunningRequests

log = logging.getLogger(__name__)

FETCH_BYTES = 2**18
"""Limit of bytes per fetch. The engine processes these within some milliseconds, between two steps."""
KEEP_SECONDS = 30.0
"""Time for which a group's drafts are kept after its last request left the worker, in seconds: the worker often claims
another of its requests soon."""
QUIET_SECONDS = 4.0
"""Limit of the query interval of a response without new tokens, in seconds."""
PROBE_IMPORTANCE = 2.0
"""Weight of a probe's speed in the choice of draft lengths while requests wait: its length determines their order."""
LARGEST_IMPORTANCE = 4.0
"""Limit of a response's weight when no request waits. Then the responses with the most tokens left have the largest
weights, because they determine the end of the batch."""


@dataclass(slots=True)
class _Log:
    """The state of the queries for one response. `known`: number of its tokens here; `queried_at`: time of the last
    query, 0 for none; `pause`: seconds until the next query, 0 after new tokens.
    """

    known: int = 0
    queried_at: float = 0.0
    pause: float = 0.0


@dataclass(slots=True)
class _FollowedGroup:
    """A group with requests here now or within KEEP_SECONDS. `logs`: by index, for the responses that run here or were
    queried. `running_at`: time at which it last had a request here; `earlier`: whether the responses of earlier batches
    are still to be queried."""

    running_at: float
    earlier: bool
    logs: dict[int, _Log] = field(default_factory=dict[int, _Log])


class Sharing:
    """Passes siblings' tokens of one worker's groups from the store to its engine."""

    def __init__(
        self, store: WorkerStore, engine: Engine, running: RunningRequests, pace: CheckpointPace, *, earlier: bool
    ) -> None:
        self._store = store
        self._engine = engine
        self._running = running
        self._pace = pace
        self._earlier = earlier
        self._groups: dict[GroupId, _FollowedGroup] = {}
        self._importance: dict[str, float] = {}
        self._tokens = 0
        self._lag = 0.0
        self._failing = False

    async def run(self) -> None:
        """Fetches once per checkpoint interval until cancelled; returns at once if the engine does not draft."""
        while self._engine.drafts:
            await asyncio.sleep(self._pace.seconds)
            try:
                await self._share()
            except (StoreError, LoadError) as error:
                if not self._failing:
                    log.warning("siblings' tokens cannot be read at the moment: %s", error)
                self._failing = True
            else:
                self._failing = False

    def metrics(self) -> WorkerMetrics:
        """shared_tokens, shared_bytes: totals; share_lag: age of the latest tokens in seconds. Empty without drafts."""
        if not self._engine.drafts:
            return WorkerMetrics()
        shared_bytes = self._tokens * ITEM_BYTES
        lag = round(self._lag, 3)
        return WorkerMetrics({"shared_tokens": self._tokens, "shared_bytes": shared_bytes, "share_lag": lag})

    async def _share(self) -> None:
        now = asyncio.get_running_loop().time
        began = now()
        released = self._follow_groups(began)
        queries = self._queries(began)
        found = await self._store.siblings(queries, FETCH_BYTES) if queries else []
        news = DraftNews(importance=importance(self._running), released=[str(group) for group in released])
        # New tokens were written after the last query for their response, so their age is at most the time since then.
        since = [queried_at for siblings in found for queried_at in self._add(siblings, news) if queried_at]
        self._note_queried(queries, began)
        if news.tokens or news.earlier or news.released or news.importance != self._importance:
            await self._engine.feed(news)
            self._importance = news.importance
        if since:
            self._lag = now() - min(since)

    def _follow_groups(self, now: float) -> list[GroupId]:
        """Updates the followed groups from the running requests. Returns the groups that are no longer followed."""
        for group, generated in self._running.members().items():
            followed = self._groups.get(group)
            if followed is None:
                followed = self._groups[group] = _FollowedGroup(now, self._earlier)
            followed.running_at = now
            for index, tokens in generated.items():
                log = followed.logs.setdefault(index, _Log())
                log.known, log.pause = max(tokens, log.known), 0.0
        released = [group for group, followed in self._groups.items() if now - followed.running_at > KEEP_SECONDS]
        for group in released:
            del self._groups[group]
        return released

    def _queries(self, now: float) -> list[SiblingQuery]:
        """One query for every group that runs here: for its responses that do not run here and are not paused."""
        queries: list[SiblingQuery] = []
        for group, generated in self._running.members().items():
            followed = self._groups[group]
            logs = [
                (index, followed.logs.setdefault(index, _Log()))
                for index in range(self._running.view(group).size)
                if index not in generated
            ]
            known = tuple((index, log.known) for index, log in logs if now >= log.queried_at + log.pause)
            if known or followed.earlier:
                queries.append(SiblingQuery(group, known, followed.earlier))
        return queries

    def _add(self, siblings: Siblings, news: DraftNews) -> list[float]:
        """Adds the store's reply to the news, and records the position of the next query.

        Returns the time of the last query for each response with new tokens, 0 for none.
        """
        followed, name = self._groups[siblings.group], str(siblings.group)
        if siblings.earlier is not None:
            followed.earlier = False
            if siblings.earlier:
                news.earlier.append((name, list(siblings.earlier)))
        for new in siblings.news:
            count = count_items(new.tokens)
            news.tokens.append(DraftTokens(name, *new))
            followed.logs[new.response_index].known = new.position + count
            self._tokens += count
        return [followed.logs[new.response_index].queried_at for new in siblings.news]

    def _note_queried(self, queries: list[SiblingQuery], now: float) -> None:
        """Sets the pauses: doubled for responses without new tokens, 0 for the others."""
        for query in queries:
            for index, known in query.known:
                log = self._groups[query.group].logs[index]
                quiet = log.known == known
                log.pause = min(max(2 * log.pause, self._pace.seconds), QUIET_SECONDS) if quiet else 0.0
                log.queried_at = now


def importance(running: RunningRequests) -> dict[str, float]:
    """The importance of each running response by key, if it is not 1.

    While requests wait, it is PROBE_IMPORTANCE for probes. When none wait, it is a response's expected remaining tokens
    (its group's estimate - generated) divided by their mean, if above 1, and at most LARGEST_IMPORTANCE.
    """
    requests = running.running()
    if running.fleet_load is None or running.fleet_load.waiting:
        return {request.key: PROBE_IMPORTANCE for request in requests if request.claim.request.index == PROBE_INDEX}
    rests = {
        request.key: max(0, estimate(running.view(request.claim.request.group)) - request.generated)
        for request in requests
    }
    mean = sum(rests.values()) / max(1, len(rests))
    return {key: min(LARGEST_IMPORTANCE, rest / mean) for key, rest in rests.items() if rest > mean}
