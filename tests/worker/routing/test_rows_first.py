"""Rows are in files before their tokens are in the store, also at a worker's death; a prompt's rows are written
once."""

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.ids import WorkerId
from openseer_core.queue.messages import Claim, Delta, ExtendReply, Finish, Reply
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import count_items
from openseer_store.memory import MemoryStore
from openseer_store.port import WorkerStore
from openseer_store.routed.assembly import RoutedExperts, assemble
from openseer_worker.engine import EngineOutput
from openseer_worker.kv_pool import free_space, sweeps
from openseer_worker.routing import writer
from openseer_worker.routing.keeper import RouteKeeper
from openseer_worker.routing.rows_first import RowsFirst
from openseer_worker.routing.writer import check_rows_folder
from tests.store.builders import ANN, BOB, Clock, delta, finish, group, query, request, results, tokens, wait

SHAPE = RowShape(1, 2, 1)
PROMPT = 16


def at(first: int, count: int) -> Stretch:
    """Rows that contain their positions."""
    return Stretch(first, bytes(number for place in range(first, first + count) for number in (place, 0)))


class Fleet:
    """A store, and workers that keep rows in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.keepers: dict[WorkerId, RouteKeeper] = {}

    def worker(self, name: WorkerId) -> RowsFirst:
        keeper = self.keepers[name] = RouteKeeper(self.folder, SHAPE, name)
        return RowsFirst(self.store, keeper)

    def generate(self, worker: WorkerId, claim: Claim, count: int) -> None:
        """Plays `count` more tokens of the engine, with their rows."""
        keeper, before = self.keepers[worker], PROMPT + claim.generated - 1
        first = keeper.rows_from(claim.key)
        assert first is not None
        keeper.take(EngineOutput(claim.key, routes=(at(first, before + count - first),)))

    async def found(self) -> list[RoutedExperts]:
        return [assemble(self.folder, result) for result in await results(self.store)]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "rows")


def whole(found: RoutedExperts, total: int) -> bool:
    return found.gaps == 0 and list(found.rows[::2]) == list(range(total - 1))


async def test_a_moved_response_has_all_rows_and_one_computed_prompt(fleet: Fleet) -> None:
    ann, bob = fleet.worker(ANN), fleet.worker(BOB)
    await fleet.store.submit([group("a", 2)])
    first, second = await ann.claim(ANN, query())
    assert [fleet.keepers[ANN].rows_from(claim.key) for claim in (first, second)] == [0, PROMPT - 1]
    fleet.generate(ANN, first, 5)
    fleet.generate(ANN, second, 3)
    await ann.complete(ANN, [finish(second, 3)])
    await ann.give_back(ANN, [delta(first, 5)])
    assert fleet.keepers[ANN].rows_from(first.key) is None
    [again] = await bob.claim(BOB, query())
    assert fleet.keepers[BOB].rows_from(again.key) == PROMPT + 4
    fleet.generate(BOB, again, 4)
    await bob.complete(BOB, [finish(again, 4)])
    assert [whole(found, total) for found, total in zip(await fleet.found(), (19, 25), strict=True)] == [True, True]


async def test_a_response_that_ends_first_uses_its_siblings_prompt_rows(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 2)])
    first, second = await ann.claim(ANN, query())
    fleet.generate(ANN, first, 2)  # before its next checkpoint
    fleet.generate(ANN, second, 3)
    await ann.complete(ANN, [finish(second, 3)])
    assert [whole(found, PROMPT + 3) for found in await fleet.found()] == [True]


async def test_a_dead_worker_leaves_the_rows_of_all_stored_tokens(fleet: Fleet) -> None:
    ann, bob = fleet.worker(ANN), fleet.worker(BOB)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    fleet.generate(ANN, claim, 6)
    await ann.extend(ANN, [delta(claim, 4)], [], lease_seconds=10, version="v1", lanes=("",))
    await wait(fleet.store, fleet.clock, 60)
    [again] = await bob.claim(BOB, query())
    assert again.generated == 4
    assert fleet.keepers[BOB].rows_from(again.key) == PROMPT + 3
    fleet.generate(BOB, again, 3)
    await bob.complete(BOB, [finish(again, 3)])
    assert [whole(found, PROMPT + 7) for found in await fleet.found()] == [True]


async def test_a_lease_ended_during_prefill_leaves_the_prompt_to_another(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query(number=1))
    fleet.keepers[ANN].take(EngineOutput(claim.key, routes=(at(0, PROMPT - 2),)))
    await ann.give_back(ANN, [delta(claim, 0)])
    [again] = await ann.claim(ANN, query(number=2))
    assert fleet.keepers[ANN].rows_from(again.key) == 0
    fleet.generate(ANN, again, 2)
    await ann.complete(ANN, [finish(again, 2)])
    assert [whole(found, PROMPT + 2) for found in await fleet.found()] == [True]


@pytest.mark.parametrize("kept", [0, 20, -1])
async def test_a_torn_prompt_file_is_written_again(fleet: Fleet, kept: int) -> None:
    ann, bob = fleet.worker(ANN), fleet.worker(BOB)
    await fleet.store.submit([group("a", 2)])
    [first] = await ann.claim(ANN, query(slots=1))
    fleet.generate(ANN, first, 3)
    await ann.complete(ANN, [finish(first, 3)])
    [prompt] = fleet.folder.rglob("prompt.*")
    prompt.write_bytes(prompt.read_bytes()[:kept])
    [second] = await bob.claim(BOB, query())
    assert fleet.keepers[BOB].rows_from(second.key) == 0
    fleet.generate(BOB, second, 3)
    await bob.complete(BOB, [finish(second, 3)])
    assert [whole(found, PROMPT + 3) for found in await fleet.found()] == [True, True]


async def test_rows_of_appended_tokens_are_requested(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query(number=1))
    fleet.generate(ANN, claim, 4)
    await ann.complete(ANN, [finish(claim, 4)])
    assert await fleet.store.go_on(request("a/0"), 0, tokens(4, 3))
    [again] = await ann.claim(ANN, query(number=2))
    assert fleet.keepers[ANN].rows_from(again.key) == PROMPT + 3
    fleet.keepers[ANN].take(EngineOutput(again.key, routes=(at(PROMPT + 3, 5),)))
    await ann.complete(ANN, [finish(again, 2)])
    assert [whole(found, total) for found, total in zip(await fleet.found(), (20, 25), strict=True)] == [True, True]


def hang(*_: object) -> None:
    time.sleep(2)


async def test_equal_contexts_share_computed_rows(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 2)])
    leases = await ann.claim(ANN, query(number=1))
    for claim in leases:
        fleet.generate(ANN, claim, 4)
        await ann.complete(ANN, [finish(claim, 4)])
        assert await fleet.store.go_on(claim.request, 0, tokens(4, 3))
    first, second = await ann.claim(ANN, query(number=2))
    fleet.keepers[ANN].take(EngineOutput(first.key, routes=(at(PROMPT + 3, 5),)))
    # All but the last of its tokens were found in the cache.
    fleet.keepers[ANN].take(EngineOutput(second.key, routes=(at(PROMPT + 6, 2),)))
    await ann.complete(ANN, [finish(first, 2), finish(second, 2)])
    assert [whole(found, total) for found, total in zip(await fleet.found(), (20, 20, 25, 25), strict=True)] == [
        True
    ] * 4


async def test_a_hanging_folder_loses_rows_and_no_tokens(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAIT_SECONDS", 0.05)
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    hung: Any = fleet.keepers[ANN]
    monkeypatch.setattr(hung._writer, "_append", hang)
    fleet.generate(ANN, claim, 3)
    async with asyncio.timeout(1.5):
        await ann.complete(ANN, [finish(claim, 3)])
    [found] = await fleet.found()
    assert found.missing == ((PROMPT - 1, PROMPT + 2),)


async def test_a_hanging_folder_delays_a_worker_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAIT_SECONDS", 0.4)
    ann, groups = fleet.worker(ANN), 12
    await fleet.store.submit([group(f"g{number}", 1) for number in range(groups)])
    claims = await ann.claim(ANN, query(slots=groups))
    assert len(claims) == groups
    answers = threading.Event()
    hung: Any = fleet.keepers[ANN]

    def wait_long(*_: object) -> None:
        answers.wait()

    monkeypatch.setattr(hung._writer, "_append", wait_long)
    monkeypatch.setattr(hung._writer, "_put", wait_long)
    for claim in claims:
        fleet.generate(ANN, claim, 3)
    began = time.monotonic()
    await ann.extend(ANN, [delta(claim, 3) for claim in claims], [], lease_seconds=10, version="v1", lanes=("",))
    for claim in claims:
        fleet.keepers[ANN].take(EngineOutput(claim.key, routes=(at(PROMPT + 2, 1),)))
        await ann.complete(ANN, [finish(claim, 1, 3)])
    took = time.monotonic() - began
    answers.set()
    assert took < 5 * 0.4


async def test_a_folder_whose_reads_hang_delays_a_worker_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAIT_SECONDS", 0.4)
    rows, answers = writer.RowWriter(tmp_path), threading.Event()

    def read(file: Path) -> bool:
        return answers.wait()

    began = time.monotonic()
    for number in range(8):
        assert await rows.ask([tmp_path / str(number)], read) == [False]
    assert time.monotonic() - began < 3 * 0.4
    answers.set()
    async with asyncio.timeout(20):
        while await rows.ask([tmp_path / "later"], read) == [False]:
            await asyncio.sleep(0.01)
    assert await rows.put(tmp_path / "later", b"rows")


async def test_a_folder_that_hangs_for_long_ends_no_worker(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(writer, "UNSAVED_BYTES", 200)  # more than the thread accepts, less than is offered to it
    ann, answers = fleet.worker(ANN), threading.Event()
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    kept: Any = fleet.keepers[ANN]
    append = kept._writer._append

    def append_late(*piece: Any) -> None:
        answers.wait()
        append(*piece)

    async def tell(place: int) -> None:
        kept.take(EngineOutput(claim.key, routes=(at(PROMPT - 1 + place, 1),)))
        await ann.extend(ANN, [delta(claim, 1, place)], [], lease_seconds=10, version="v1", lanes=("",))

    monkeypatch.setattr(kept._writer, "_append", append_late)
    monkeypatch.setattr(kept._writer._threads, "_most", 3)
    for place in range(20):
        await tell(place)
    assert int(kept.metrics()["routes_lost_bytes"]) > 0
    answers.set()
    async with asyncio.timeout(20):
        while kept._writer._unsaved:
            await asyncio.sleep(0.01)
    await tell(20)
    await ann.complete(ANN, [finish(claim, 1, 21)])
    async with asyncio.timeout(20):
        while not (found := (await fleet.found())[0]).rows[-4]:
            await asyncio.sleep(0.01)
    assert found.missing[-1] == (PROMPT + 20, PROMPT + 21)


async def test_a_prompt_preempted_during_prefill_has_all_rows(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    for first, end in ((0, 8), (0, 5), (5, 11), (11, PROMPT + 2)):
        fleet.keepers[ANN].take(EngineOutput(claim.key, routes=(at(first, end - first),)))
    await ann.complete(ANN, [finish(claim, 3)])
    assert [whole(found, PROMPT + 3) for found in await fleet.found()] == [True]


async def test_unwritable_rows_are_counted_as_missing(fleet: Fleet) -> None:
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    shutil.rmtree(fleet.folder, ignore_errors=True)
    fleet.folder.write_text("in the way")
    fleet.generate(ANN, claim, 3)
    await ann.complete(ANN, [finish(claim, 3)])
    assert [found.gaps for found in await fleet.found()] == [PROMPT + 2]
    assert int(fleet.keepers[ANN].metrics()["routes_lost_bytes"]) > 3 * SHAPE.row_bytes


async def test_rows_are_written_during_the_whole_job(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of rows is not swept, unlike that of a KV pool."""
    monkeypatch.setattr(free_space, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sweeps, "UNSWEPT_SECONDS", 0.0)
    ann = fleet.worker(ANN)
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    for place in range(5):
        fleet.keepers[ANN].take(
            EngineOutput(claim.key, routes=(at(PROMPT - 1 + place, 1) if place else at(0, PROMPT),))
        )
        await ann.extend(ANN, [delta(claim, 1, place)], [], lease_seconds=10, version="v1", lanes=("",))
    await ann.complete(ANN, [finish(claim, 0, 5)])
    assert [whole(found, PROMPT + 5) for found in await fleet.found()] == [True]


async def test_rows_are_written_before_the_store_call(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, seen = fleet.worker(ANN), list[bool]()
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    told = fleet.store.extend

    async def tell(worker: WorkerId, deltas: list[Delta], *rest: Any, **more: Any) -> ExtendReply:
        seen.append(any(file.name.startswith("0.0.") for file in fleet.folder.rglob("*")))
        return await told(worker, deltas, *rest, **more)

    monkeypatch.setattr(fleet.store, "extend", tell)
    fleet.generate(ANN, claim, 3)
    await ann.extend(ANN, [delta(claim, 3)], [], lease_seconds=10, version="v1", lanes=("",))
    assert seen == [True]
    assert count_items(claim.tokens) == 0


async def test_files_of_a_lease_are_closed_before_its_end_is_stored(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of several machines shows only closed files to the others."""
    ann, seen = fleet.worker(ANN), list[list[str]]()
    await fleet.store.submit([group("a", 1)])
    [claim] = await ann.claim(ANN, query())
    told = fleet.store.complete

    def opened() -> list[str]:
        handles = [handle for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()]
        targets = [str(handle.readlink()) for handle in handles]
        return [target for target in targets if target.startswith(str(fleet.folder))]

    async def tell(worker: WorkerId, finishes: list[Finish]) -> list[Reply]:
        seen.append(opened())
        return await told(worker, finishes)

    monkeypatch.setattr(fleet.store, "complete", tell)
    fleet.generate(ANN, claim, 3)
    await ann.extend(ANN, [delta(claim, 3)], [], lease_seconds=10, version="v1", lanes=("",))
    assert len(opened()) == 1
    await ann.complete(ANN, [finish(claim, 0, 3)])
    assert seen == [[]]
    assert [whole(found, PROMPT + 3) for found in await fleet.found()] == [True]


def test_a_missing_or_unwritable_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="given no folder for rows; start it with --routed"):
        check_rows_folder(None)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"spec\.routing\.capture: .*file/rows: workers cannot write there"):
        check_rows_folder(tmp_path / "file/rows")
    check_rows_folder(tmp_path / "new/rows")


def test_every_verb_of_a_workers_store_is_passed_on() -> None:
    assert {name for name in vars(WorkerStore) if not name.startswith("_")} <= vars(RowsFirst).keys()


def test_without_capture_no_rows_are_kept() -> None:
    keeper = RouteKeeper(None, SHAPE, ANN)
    keeper.take(EngineOutput("k", routes=(at(0, 1),)))
    assert (keeper.is_on, keeper.rows_from("k"), keeper.metrics()) == (False, None, {})
