"""Removal from a pool by a worker: ended groups first, and blocks of replaced versions."""

import asyncio
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openseer_worker.kv_pool import keeper as keeping
from openseer_worker.kv_pool import sweepers, sweeps
from openseer_worker.kv_pool.keeper import GRACE_SECONDS, PoolKeeper
from openseer_worker.kv_pool.places import EnginePool, group_place, version_place
from tests.worker.kv_pool.groups import BLOCK, BLOCKS, EPOCH, group, present


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "SWEEP_SECONDS", 0.01)


class Fleet:
    """A worker's served versions and its keeper of a pool. `now`: its clock in seconds; `looks`: number of reads of the
    versions."""

    def __init__(self, folder: Path, most_bytes: int = 10**9) -> None:
        self.versions = ["v1"]
        self.now = 100.0
        self.looks = 0
        pool = EnginePool("shared-directory", folder)
        self.keeper = PoolKeeper(pool, most_bytes, lambda: EPOCH, self._served, lambda: self.now)

    def _served(self) -> list[str]:
        self.looks += 1
        return self.versions

    def serve(self, *versions: str) -> None:
        """Sets the served versions and waits until the keeper has read them."""
        self.versions, before = list(versions), self.looks
        self.run_until(lambda: self.looks > before)

    def run_until(self, holds: Callable[[], bool]) -> None:
        async def story() -> None:
            task = asyncio.create_task(self.keeper.run())
            async with asyncio.timeout(30):
                while not holds():
                    assert not task.done()
                    await asyncio.sleep(0.005)
            task.cancel()

        asyncio.run(story())


def test_ended_groups_are_removed_first(tmp_path: Path) -> None:
    now = time.time()
    old, over, new = (group(tmp_path, name, now - age) for name, age in (("a", 1000), ("b", 500), ("c", 0)))
    fleet = Fleet(tmp_path, 3 * BLOCKS * BLOCK - 1)
    fleet.keeper.end("b", "v1")
    fleet.run_until(lambda: not over.exists())
    assert present(old, over, new) == [True, False, True]


def test_blocks_of_a_replaced_version_are_removed_after_a_while(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    old, adapter, new = (group(tmp_path, "a", time.time(), version=one) for one in ("v1", "adapter", "v2"))
    fleet.serve("v1", "adapter")
    fleet.serve("v2")
    fleet.now += GRACE_SECONDS / 2
    fleet.serve("v2")
    assert all(present(old, adapter, new))
    fleet.now += GRACE_SECONDS
    gone = [tmp_path / version_place(EPOCH, version) for version in ("v1", "adapter")]
    fleet.run_until(lambda: not any(present(*gone)))
    assert new.exists()


def test_blocks_of_a_restored_version_stay(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    first, second = (group(tmp_path, "a", time.time(), version=one) for one in ("v1", "v2"))
    for version in ("v1", "v2", "v1"):
        fleet.serve(version)
    fleet.now += 2 * GRACE_SECONDS
    fleet.run_until(lambda: not second.exists())
    assert first.exists()


def test_a_failed_sweep_of_a_replaced_version_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path)
    old = group(tmp_path, "a", time.time())
    for version in ("v1", "v2"):
        fleet.serve(version)
    fleet.now += 2 * GRACE_SECONDS
    remove, tries = shutil.rmtree, list[object]()

    def fail_once(folder: Path, **_options: object) -> None:
        tries.append(folder)
        if len(tries) == 1:
            raise PermissionError("busy")
        remove(folder, ignore_errors=True)

    monkeypatch.setattr(shutil, "rmtree", fail_once)
    fleet.run_until(lambda: not old.exists())
    assert len(tries) == 2


def test_versions_have_their_own_places(tmp_path: Path) -> None:
    keeper = Fleet(tmp_path).keeper
    assert keeper.place("a", "adapter") != keeper.place("a", "v1")
    assert keeper.place("a", "adapter") == group_place(EPOCH, "adapter", "a")


def test_a_failed_sweep_ends_no_worker_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[Path] = []

    def fail(folder: Path, *_more: object) -> None:
        tries.append(folder)
        raise RecursionError("too deep")

    monkeypatch.setattr(sweepers, "sweep", fail)
    with caplog.at_level(logging.WARNING):
        Fleet(tmp_path).run_until(lambda: len(tries) > 2)
    assert [record.message for record in caplog.records] == ["the KV pool is not swept: too deep"]


def test_a_hanging_sweep_delays_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, hold = threading.Event(), threading.Event()

    def hang(*_arguments: object) -> None:
        began.set()
        hold.wait()

    monkeypatch.setattr(sweepers, "sweep", hang)
    fleet = Fleet(tmp_path)
    try:
        fleet.run_until(began.is_set)  # the keeper's end does not wait for the thread
        for number in range(keeping.MOST_ENDED + 5):
            fleet.keeper.end(str(number), "v1")
    finally:
        hold.set()


def test_without_a_pool_there_is_no_place() -> None:
    keeper = PoolKeeper(None, 10**9, lambda: EPOCH, lambda: ["v1"])
    keeper.end("a", "v1")
    assert keeper.place("a", "v1") == ""
    asyncio.run(keeper.run())
