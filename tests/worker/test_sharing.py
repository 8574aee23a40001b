"""News of siblings, from the store to engines that draft, in virtual time."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openseer_core.errors import LoadError, StoreUnavailableError
from openseer_core.ids import GroupId
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.group import GroupSpec, Priority
from openseer_core.queue.siblings import SiblingQuery, Siblings
from openseer_core.tokens import ITEM_BYTES, pack_tokens
from openseer_store.memory import MemoryStore
from openseer_worker.engine import DraftNews
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.scripted.text import scripted_tokens
from openseer_worker.scripted.virtual_time import run_virtual
from openseer_worker.settings import WorkerSettings
from openseer_worker.sharing import KEEP_SECONDS, LARGEST_IMPORTANCE, PROBE_IMPORTANCE, QUIET_SECONDS

SIZE = 4
LENGTH = 600


class DraftingEngine(ScriptedEngine):
    """An engine that drafts and records its news."""

    drafts = True

    def __init__(self, job: RolloutJob) -> None:
        super().__init__(job.spec.model.scripted)
        self.news: list[DraftNews] = []

    async def feed(self, news: DraftNews) -> list[int]:
        self.news.append(news)
        return await super().feed(news)

    def fed(self) -> dict[tuple[str, int], bytes]:
        """All fed tokens by response; asserts that each news continues where the previous one ended."""
        found: dict[tuple[str, int], bytes] = {}
        for news in self.news:
            for group, index, position, tokens in news.tokens:
                before = found.get((group, index), scripted_tokens(group, index, 0, position))
                assert len(before) == position * ITEM_BYTES
                found[group, index] = before + tokens
        return found


class Scene:
    """A store with one batch, and workers whose engines draft."""

    def __init__(self, **speculation: int) -> None:
        document = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": "sharing"},
            "spec": {
                "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.01, "slots": 2}},
                "prompts": {"path": "none"},
                "groupSize": SIZE,
                "sampling": {"maxTokens": LENGTH, "forceLengths": True},
                "speculation": speculation,
                "rollout": {"quantumTokens": 10 * LENGTH},  # no response yields to a sibling
                "workers": {"replicas": 2},
            },
        }
        self.job = parse_job(document, "test")
        self.store = QueriedStore(asyncio.get_running_loop().time)
        self.engines: list[DraftingEngine] = []
        self.workers: list[Worker] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def submit(self, name: str = "g", lengths: tuple[int, ...] = (LENGTH,) * SIZE, batch: int = 0) -> None:
        size = len(lengths)
        spec = GroupSpec(
            GroupId(batch, name), "initial", 0, pack_tokens([1, 2, 3]), LENGTH, (0.0,) * size, ("",) * size,
            Priority(0.0), 0.0, lengths, dump_sampling(self.job.spec.sampling), history="prompt", history_size=2,
        )  # fmt: skip
        await self.store.submit([spec])
        await self.store.seal(batch)

    def start(self, *engines: DraftingEngine) -> None:
        for engine in engines:
            worker = Worker(WorkerSettings(self.job, "", len(self.workers)), self.store, engine)
            self.engines.append(engine)
            self.workers.append(worker)
            self.tasks.append(asyncio.create_task(worker.run()))

    async def finish(self, batch: int = 0) -> None:
        while not (await self.store.progress(batch)).complete:
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        for worker in self.workers:
            worker.drain()
        await asyncio.gather(*self.tasks)


class QueriedStore(MemoryStore):
    """A store that counts queries for siblings, records their times by response, and can fail them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.queried = 0
        self.logs: list[tuple[float, int]] = []
        self.away = False

    async def siblings(self, queries: list[SiblingQuery], limit_bytes: int) -> list[Siblings]:
        self.queried += 1
        self.logs += [(asyncio.get_running_loop().time(), index) for query in queries for index, _ in query.known]
        if self.away:
            raise StoreUnavailableError("away")
        return await super().siblings(queries, limit_bytes)


def play(scenario: Callable[[Scene], Coroutine[Any, Any, None]], **speculation: int) -> None:
    async def main() -> None:
        scene = Scene(**speculation)
        await scenario(scene)
        await scene.close()

    run_virtual(main())


def test_each_engine_is_fed_the_tokens_of_the_others_in_order_and_once() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit()
        scene.start(DraftingEngine(scene.job), DraftingEngine(scene.job))
        await scene.finish()
        first, second = (engine.fed() for engine in scene.engines)
        assert {index for _, index in first} | {index for _, index in second} == set(range(SIZE))
        for (group, index), tokens in [*first.items(), *second.items()]:
            assert tokens == scripted_tokens(group, index, 0, len(tokens) // ITEM_BYTES)
            assert len(tokens) // ITEM_BYTES > LENGTH - 200
        await asyncio.sleep(1.5)
        for status in await scene.store.workers():
            metrics = status.heartbeat.metrics
            assert float(metrics["shared_tokens"]) * ITEM_BYTES == metrics["shared_bytes"]
            assert int(metrics["shared_tokens"]) > 0
            assert 0 < float(metrics["share_lag"]) <= 2 * scene.job.spec.rollout.checkpoint_seconds

    play(scenario)


def test_a_store_outage_loses_no_work_and_news_continue_afterwards() -> None:
    async def scenario(scene: Scene) -> None:
        scene.store.away = True
        await scene.submit()
        scene.start(DraftingEngine(scene.job), DraftingEngine(scene.job))
        await asyncio.sleep(3.0)
        assert scene.store.queried > 2
        assert not any(engine.fed() for engine in scene.engines)
        scene.store.away = False
        await asyncio.sleep(1.5)
        assert all(engine.fed() for engine in scene.engines)
        await scene.finish()

    play(scenario)


def test_responses_without_news_are_queried_at_growing_intervals() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit(lengths=(10 * LENGTH,) * SIZE)
        scene.start(DraftingEngine(scene.job))  # runs two of four
        await asyncio.sleep(50)
        for waiting in (2, 3):
            times = [at for at, index in scene.store.logs if index == waiting]
            pauses = [after - before for before, after in itertools.pairwise(times)]
            assert pauses == sorted(pauses)
            assert pauses[-1] == pytest.approx(QUIET_SECONDS, abs=scene.job.spec.rollout.checkpoint_seconds)
            assert len(times) < 20

    play(scenario)


def test_a_quiet_response_with_news_is_queried_every_time_again() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit()
        scene.start(DraftingEngine(scene.job))  # runs two of four
        await asyncio.sleep(2.5)
        scene.start(DraftingEngine(scene.job))
        await scene.finish()
        seconds = scene.job.spec.rollout.checkpoint_seconds
        times = [at for at, index in scene.store.logs if index == 3 and at > 1.5]
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert pauses[0] > 4 * seconds
        assert pauses[1:9] == pytest.approx([seconds] * 8)

    play(scenario)


def test_nothing_is_queried_when_the_engine_does_not_draft() -> None:
    async def scenario(scene: Scene) -> None:
        engines = [DraftingEngine(scene.job), DraftingEngine(scene.job)]
        for engine in engines:
            engine.drafts = False
        await scene.submit()
        scene.start(*engines)
        await scene.finish()
        assert scene.store.queried == 0
        assert not any("shared_tokens" in status.heartbeat.metrics for status in await scene.store.workers())

    play(scenario)


def test_an_engine_that_fails_to_take_news_continues() -> None:
    class Failing(DraftingEngine):
        async def feed(self, news: DraftNews) -> list[int]:
            raise LoadError("no")

    async def scenario(scene: Scene) -> None:
        await scene.submit()
        scene.start(Failing(scene.job), Failing(scene.job))
        await scene.finish()

    play(scenario)


@pytest.mark.parametrize("earlier", [0, 2])
def test_earlier_responses_are_fed_once_if_the_job_asks_for_them(earlier: int) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit("old", (50, 60))
        scene.start(DraftingEngine(scene.job))
        await scene.finish()
        await scene.submit("new", batch=1)
        await scene.finish(1)
        fed = [earlier_news for news in scene.engines[0].news for earlier_news in news.earlier]
        expected = [("1/new", [scripted_tokens("0/old", 1, 0, 60), scripted_tokens("0/old", 0, 0, 50)])]
        assert fed == (expected if earlier else [])

    play(scenario, earlierResponses=earlier)


def test_a_group_is_released_some_time_after_its_last_request() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit()
        scene.start(DraftingEngine(scene.job))
        await scene.finish()
        await asyncio.sleep(KEEP_SECONDS - 2)
        assert not any(news.released for news in scene.engines[0].news)
        await asyncio.sleep(4)
        assert [name for news in scene.engines[0].news for name in news.released] == ["0/g"]

    play(scenario)


def test_importance_favours_waiting_probes_then_the_longest_remainder() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.submit(lengths=(500, 100, 100, LENGTH))
        scene.start(DraftingEngine(scene.job))
        await scene.finish()
        fed = [
            (key.split(":")[0], importance)
            for news in scene.engines[0].news
            for key, importance in news.importance.items()
        ]
        assert fed[0] == ("0/g/0", PROBE_IMPORTANCE)
        assert fed[-1][0] == "0/g/3"
        assert 1 < fed[-1][1] <= LARGEST_IMPORTANCE

    play(scenario)
