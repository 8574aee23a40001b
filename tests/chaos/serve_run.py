"""A serving job under faults: a trainer with two batches open at a time, and new weights in the middle.

Two replicas of the API serve the trainer: it uploads the groups of a batch through one and seals it through the other.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from benchmarks.support.control_plane import free_port
from openseer_client import AsyncClient, NotFoundError, Publish, ResultItem, Source, WeightsError
from openseer_core.errors import OpenseerError
from openseer_core.ids import INITIAL_VERSION, GroupId, RequestId
from openseer_core.queue.messages import Result
from openseer_core.tokens import pack_tokens
from openseer_driver.audit.audit import audit
from openseer_driver.driver import result_line
from openseer_text.rendering import open_codec
from tests.chaos.scene import Scene
from tests.chaos.schedule import Fault
from tests.chaos.verdict import Taken, Verdict, check_failures, check_results, request_ids, scripted_response
from tests.chaos.workload import GROUP_SIZE, RETRIES, group_count, trainer_groups
from tests.worker.weights.made import write_weights

BATCHES = 4
AT_ONCE = 2
TOKEN = "let-me-in"
PAGE = 256
MOST = 10_000
PUBLISHES = 5
"""Most attempts of a trainer to publish when workers die during it."""


@dataclass
class Trainer:
    """A trainer that fills and reads batches, publishes weights, and repeats a batch that was lost."""

    client: AsyncClient
    other: AsyncClient
    """A client of the other replica."""
    scene: Scene
    groups: int
    taken: list[Taken] = field(default_factory=list[Taken])
    numbers: dict[int, int] = field(default_factory=dict[int, int])
    """The number of each batch, by its place."""
    published: int = 0
    moved: int = 0

    async def train(self) -> None:
        """Runs all batches, two open at a time, and publishes new weights once the first one is read."""
        lanes = asyncio.Semaphore(AT_ONCE)

        async def one(place: int) -> None:
            async with lanes:
                await self._batch(place)
            if place == 0:
                await self._publish()

        async with asyncio.TaskGroup() as tasks:
            for place in range(BATCHES):
                tasks.create_task(one(place))

    async def _batch(self, place: int) -> None:
        """Runs one batch and takes each result once. If the store has lost the batch, its key opens it again, empty."""
        mine = dict[RequestId, Taken]()
        while True:
            try:
                batch = await self.client.open_batch(key=f"batch-{place}")
                if self.numbers.get(place) != batch.id:
                    mine.clear()
                self.numbers[place] = batch.id
                await batch.submit(trainer_groups(place * self.groups, self.groups))
                await self.other.batch(batch.id).seal()
                again = set[RequestId]()
                async for item in batch.results():
                    if isinstance(item, ResultItem):
                        self._take(item, mine, again)
            except NotFoundError:
                continue
            break
        self.taken += mine.values()

    def _take(self, item: ResultItem, mine: dict[RequestId, Taken], again: set[RequestId]) -> None:
        request = RequestId(GroupId(item.batch, item.group), item.index)
        if request in again:
            self.scene.verdict.add("doubled", f"{request}: given twice by one reading")
        again.add(request)
        self.moved += 1
        mine.setdefault(request, Taken(request, item.status, pack_tokens(item.token_ids), ()))

    async def _publish(self) -> None:
        for attempt in range(1, PUBLISHES + 1):
            folder = self.scene.folder / f"weights-{attempt}"
            write_weights(folder, f"weights {attempt}")
            with suppress(WeightsError):
                await self.client.publish(Publish(version=f"v{attempt}", source=Source(path=str(folder)), mode="keep"))
                self.published = attempt
                return


async def run(scene: Scene, faults: list[Fault], seconds: float) -> None:
    """Applies the faults to one server, and checks the results of its trainer."""
    command = ["-m", "tests.chaos.api_process", "--job", str(scene.folder / "job.json"), "--store", scene.url]
    urls: list[str] = []
    for name in ("head", "replica"):
        port = free_port()
        urls.append(f"http://127.0.0.1:{port}")
        scene.add_head([*command, "--port", str(port), "--token", TOKEN], name)
    scene.start_workers()
    groups = max(1, group_count(seconds, scene.job) // BATCHES)
    async with AsyncClient(urls[0], token=TOKEN) as client, AsyncClient(urls[1], token=TOKEN) as other:
        trainer = Trainer(client, other, scene, groups)
        training = asyncio.create_task(trainer.train())
        await scene.play(faults, training.done, lambda: trainer.moved)
        if not training.done():
            training.cancel()
        try:
            await training
        except* OpenseerError as errors:
            scene.verdict.add("a trainer goes on", str(errors.exceptions[0]))
        except* asyncio.CancelledError:
            pass
        await _check(trainer)
        if training.done() and not training.cancelled() and scene.verdict.ok:
            await _acknowledge(trainer)
    await scene.leave()


async def _check(trainer: Trainer) -> None:
    scene, verdict = trainer.scene, trainer.scene.verdict
    expected = set[RequestId]()
    for place in range(BATCHES):
        names = (group.id for group in trainer_groups(place * trainer.groups, trainer.groups))
        expected |= request_ids(trainer.numbers.get(place, -place), names, GROUP_SIZE)
    check_results(verdict, trainer.taken, expected, scripted_response if verdict.engine == "scripted" else None)
    if not trainer.published:
        verdict.add("new weights", f"none of {PUBLISHES} publishes succeeded")
    numbers = sorted(trainer.numbers.values())
    stored = [result for number in numbers for result in await _stored(scene, number)]
    with_boots = [Taken(result.request, result.status, result.tokens, result.chunks) for result in stored]
    check_failures(verdict, with_boots, scene.dead, RETRIES)
    scene.note_recoveries(with_boots)
    _check_versions(verdict, stored, trainer.published)
    codec = open_codec(scene.job.spec.model)
    # Results of a batch that was moved to new weights have the new version; its groups have the submitted one.
    submitted = {spec.id: spec.version for number in numbers for spec in await scene.store.groups(number, 0, MOST)}
    lines = [
        msgspec.structs.replace(result_line(result, codec), weights_version=submitted[result.request.group])
        for result in stored
    ]
    report = await audit(scene.store, lines, numbers)
    verdict.audit = report.as_dict() | {"violations": report.lines()[1:6]}
    if not report.ok:
        verdict.add("audit is clean", str(report.by_kind))


def _check_versions(verdict: Verdict, results: list[Result], published: int) -> None:
    """Checks that each token's weights were committed and are not older than those of the token before it."""
    order = [INITIAL_VERSION, *([f"v{published}"] if published else [])]
    for result in results:
        versions = [chunk.version for chunk in result.chunks if chunk.end > chunk.start]
        if not set(versions) <= set(order) or versions != sorted(versions, key=order.index):
            verdict.add("versions in order", f"{result.request}: {versions}")


async def _stored(scene: Scene, batch: int) -> list[Result]:
    found, cursor = list[Result](), 0
    while page := await scene.store.results(batch, cursor, PAGE):
        found += [entry for entry in page if isinstance(entry, Result)]
        cursor = page[-1].cursor
    return found


async def _acknowledge(trainer: Trainer) -> None:
    """Acknowledges all batches, and checks that they leave only the keys that are kept for a day."""
    for number in trainer.numbers.values():
        last = (await trainer.client.batch(number).status()).last_cursor
        await trainer.client.batch(number).acknowledge(last)
    for name in ("group", "spec", "request", "tokens", "logprobs", "chunks", "waiting"):
        for key in await trainer.scene.server.keys(f"*:{name}:*"):
            trainer.scene.verdict.add("no key left after acknowledge", key)
