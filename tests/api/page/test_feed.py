"""The cost of many concurrent viewers: one read of the store, one view, the same bytes for all."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from openseer_api.http.auth import BearerAuth
from openseer_api.page import routes
from openseer_api.page.app import page_app
from openseer_api.page.feed import TICK_SECONDS, JobFeed
from openseer_api.page.shown import GroupViews
from openseer_core.ids import INITIAL_VERSION, GroupId, RequestId
from openseer_core.manifest.generation import JobMode
from openseer_core.queue.batch import QueueLoad
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.messages import JournalEntry
from openseer_core.wire.page import JobCard
from openseer_store.memory import MemoryStore
from openseer_worker.scripted.virtual_time import run_virtual
from tests.api.page.watching import Viewer
from tests.api.served import LONG, TOKEN, Served, prompts
from tests.store.builders import ANN, finish, group, query

VIEWERS = 10


class CountingStore(MemoryStore):
    """A store that counts the calls of `load` and `lengths`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def load(self) -> QueueLoad:
        self.asked["load"] += 1
        return await super().load()

    async def lengths(self, requests: list[RequestId]) -> list[int]:
        self.asked["lengths"] += 1
        await asyncio.sleep(0)  # as over a network: other tasks run meanwhile
        return await super().lengths(requests)


async def test_concurrent_viewers_share_one_view() -> None:
    async with Served(store=CountingStore(), held=True) as served:
        served.start_worker()
        batch = await served.open(sampling=LONG)
        await served.upload(batch, prompts(2), seal=True)
        await served.until_sampled(batch)
        assert isinstance(served.store, CountingStore)
        feed = JobFeed(served.context)
        served.store.asked.clear()
        views = await asyncio.gather(*(feed.batch_view(batch) for _ in range(VIEWERS)))
        assert served.store.asked == {"load": 1, "lengths": 1}
        assert len({id(view) for view in views}) == 1


class LateStore(MemoryStore):
    """A store that runs `meanwhile` once, after its first answer, as a concurrent call of another client."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def group_names(self, batch: int, start: int, limit: int) -> list[str]:
        names = await super().group_names(batch, start, limit)
        await self._others()
        return names

    async def journal(self, batch: int, start: int, limit: int) -> list[JournalEntry]:
        entries = await super().journal(batch, start, limit)
        await self._others()
        return entries

    async def _others(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()


async def groups_after(feed: JobFeed, batch: int) -> list[dict[str, int]]:
    """The groups in the second view."""
    await feed.batch_view(batch)
    await asyncio.sleep(TICK_SECONDS)
    groups = json.loads(await feed.batch_view(batch))["groups"]
    kinds = ("size", "waiting", "running", "ok")
    return [{kind: groups[kind][place] for kind in kinds} for place in range(len(groups["name"]))]


async def test_a_group_added_during_a_read_is_counted_with_its_events() -> None:
    store = LateStore()
    async with Served(store=store) as served:
        batch = await served.open()

        async def come() -> None:
            await store.submit([group("late", 2, batch=batch, version=INITIAL_VERSION)])
            await store.claim(ANN, query(version=INITIAL_VERSION))

        store.meanwhile = come
        feed = JobFeed(served.context)
        assert await groups_after(feed, batch) == [{"size": 2, "waiting": 0, "running": 2, "ok": 0}]


async def test_a_group_that_has_grown_shows_all_its_requests() -> None:
    store = MemoryStore()
    async with Served(store=store) as served:
        batch = await served.open()
        spec = group("live", 1, batch=batch, version=INITIAL_VERSION)
        await store.submit([spec])
        feed = JobFeed(served.context)
        await feed.batch_view(batch)
        await store.grow(replace(spec, biases=(0.0,) * 5, lanes=(SHARED_LANE,) * 5), 1)
        await store.claim(ANN, query(2, version=INITIAL_VERSION))
        assert await groups_after(feed, batch) == [{"size": 5, "waiting": 3, "running": 2, "ok": 0}]


async def test_a_carried_group_ends_with_the_last_of_its_responses() -> None:
    store = MemoryStore()
    async with Served(store=store) as served:
        one, two = await served.open(), await served.open()
        await store.submit([group("a", 2, batch=one, version=INITIAL_VERSION)])
        done, _ = await store.claim(ANN, query(version=INITIAL_VERSION))
        await store.complete(ANN, [finish(done, 5)])
        await store.carry([GroupId(one, "a")], two, INITIAL_VERSION)
        [rest] = await store.claim(ANN, query(version=INITIAL_VERSION))
        await store.complete(ANN, [finish(rest, 5)])
        feed = JobFeed(served.context)
        assert await groups_after(feed, two) == [{"size": 2, "waiting": 0, "running": 0, "ok": 2}]


class Clocked:
    """A job whose views are the times of their requests; `slow`: duration of the first one, in seconds."""

    place = ("default", "clocked")
    mode: JobMode = "serve"

    def __init__(self, slow: float = 0.0) -> None:
        self.asked: dict[str, list[float]] = {"view": [], "pulse": []}
        self._slow = slow

    async def card(self) -> JobCard:
        raise NotImplementedError

    async def job_view(self) -> bytes:
        return await self._moment("view")

    async def job_pulse(self) -> bytes:
        return await self._moment("pulse")

    async def explained(self) -> bytes:
        raise NotImplementedError

    async def batch_view(self, number: int) -> bytes:
        raise NotImplementedError

    def group_views(self, group: GroupId, index: int | None, place: str = "") -> GroupViews:
        raise NotImplementedError

    async def _moment(self, kind: str) -> bytes:
        now = asyncio.get_running_loop().time()
        self.asked[kind].append(round(now, 6))
        slow, self._slow = self._slow, 0.0
        await asyncio.sleep(slow)
        return b"%f" % now


def watched(job: Clocked, *delays: float) -> dict[str, list[float]]:
    """Times of the requests for views, by viewers who arrive so many seconds apart."""

    async def run() -> None:
        transport = httpx.ASGITransport(page_app(job, BearerAuth(TOKEN)))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as http:
            assert await Viewer(http).login(TOKEN) == 204
            streams: list[asyncio.Task[Any]] = []
            for delay in delays:
                await asyncio.sleep(delay)
                streams.append(asyncio.create_task(http.get("/page/api/jobs/default/clocked")))
            await asyncio.gather(*streams)

    run_virtual(run())
    return job.asked


def test_all_viewers_get_views_of_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 2.2)
    asked = watched(Clocked(), 0.1, 0.25, 0.35)
    # Each has the first view at once, then all have the whole seconds, and half a second later the pulse.
    assert asked["view"] == [0.1, 0.35, 0.7, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert asked["pulse"] == [0.5, 0.5, 1.5, 1.5, 1.5, 2.5, 2.5]


def test_a_slow_read_skips_beats_without_making_up_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STREAM_SECONDS", 4.2)
    asked = watched(Clocked(slow=2.2), 0.1)
    assert (asked["view"], asked["pulse"]) == ([0.1, 3.0, 4.0], [2.5, 3.5])
