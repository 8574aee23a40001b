"""What is removed of a pool, and in which order."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from openseer_worker.kv_pool import keeper as keeping
from openseer_worker.kv_pool.keeper import PoolKeeper
from openseer_worker.kv_pool.places import EnginePool, group_place, version_place
from openseer_worker.kv_pool.sweeping import GRACE_SECONDS, STALE_SECONDS, remove_stale_fleets, sweep

BLOCK, BLOCKS = 1000, 4
EPOCH = 5


def group(folder: Path, name: str, changed_at: float, epoch: int = EPOCH, version: str = "v1") -> Path:
    """A group's folder with its blocks."""
    place = folder / group_place(epoch, version, name)
    place.mkdir(parents=True)
    for number in range(BLOCKS):
        (place / str(number)).write_bytes(bytes(BLOCK))
    os.utime(place, (changed_at, changed_at))
    return place


def present(*groups: Path) -> list[bool]:
    return [one.exists() for one in groups]


async def until(gone: Path) -> None:
    async with asyncio.timeout(30):
        while gone.exists():
            await asyncio.sleep(0.01)


def test_a_pool_within_its_bytes_keeps_all(tmp_path: Path) -> None:
    groups = [group(tmp_path, str(number), number) for number in range(3)]
    sweep(tmp_path, 3 * BLOCKS * BLOCK, EPOCH)
    assert all(present(*groups))


def test_groups_unused_for_longest_are_removed_until_there_is_room(tmp_path: Path) -> None:
    now = time.time()
    old, older, new = (group(tmp_path, name, now - age) for name, age in (("a", 10), ("b", 20), ("c", 0)))
    sweep(tmp_path, 3 * BLOCKS * BLOCK - 1, EPOCH)
    assert present(older, old, new) == [False, True, True]


def test_groups_that_are_over_are_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SWEEP_SECONDS", 0.01)
    now = time.time()
    old, over, new = (group(tmp_path, name, now - age) for name, age in (("a", 1000), ("b", 500), ("c", 0)))
    keeper = PoolKeeper(EnginePool("shared-directory", tmp_path), 3 * BLOCKS * BLOCK - 1, lambda: EPOCH)
    keeper.end("b", "v1")

    async def story() -> None:
        task = asyncio.create_task(keeper.run())
        await until(over)
        task.cancel()

    asyncio.run(story())
    assert present(old, over, new) == [True, False, True]


def test_blocks_of_an_earlier_epoch_go_when_nobody_uses_them(tmp_path: Path) -> None:
    now = time.time()
    used, unused = group(tmp_path, "a", now, EPOCH - 1), group(tmp_path, "a", now, EPOCH - 2)
    before = now - 2 * GRACE_SECONDS
    os.utime(tmp_path / str(EPOCH - 2), (before, before))
    sweep(tmp_path, 10**9, EPOCH)
    assert present(used, unused) == [True, False]


def test_blocks_of_replaced_weights_go_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(keeping, "GRACE_SECONDS", 0.0)
    keeper = PoolKeeper(EnginePool("shared-directory", tmp_path), 10**9, lambda: EPOCH)
    places = [tmp_path / keeper.place("a", version, version) for version in ("v1", "v2")]
    for place, version in zip(places, ("v1", "v2"), strict=True):
        assert place == group(tmp_path, "a", time.time(), version=version)

    async def story() -> None:
        task = asyncio.create_task(keeper.run())
        await until(tmp_path / version_place(EPOCH, "v1"))
        task.cancel()

    asyncio.run(story())
    assert present(*places) == [False, True]


def test_an_adapters_blocks_do_not_replace_those_of_the_weights(tmp_path: Path) -> None:
    keeper = PoolKeeper(EnginePool("shared-directory", tmp_path), 10**9, lambda: EPOCH)
    assert keeper.place("a", "adapter", "v1") != keeper.place("a", "v1", "v1")
    assert keeper.place("a", "adapter", "v1") == group_place(EPOCH, "adapter", "a")


def test_what_a_fleet_left_is_removed_by_another_after_hours(tmp_path: Path) -> None:
    ended, young, foreign = (tmp_path / name for name in ("ended", "young", "foreign"))
    for fleet in (ended, young, foreign):
        fleet.mkdir()
    for fleet, age in ((ended, 2 * STALE_SECONDS), (young, 0)):
        (fleet / ".sweep").touch()
        swept_at = time.time() - age
        os.utime(fleet / ".sweep", (swept_at, swept_at))
    os.utime(foreign, (0, 0))
    remove_stale_fleets(tmp_path)
    assert present(ended, young, foreign) == [False, True, True]


def test_without_a_pool_nothing_has_a_place() -> None:
    keeper = PoolKeeper(None, 10**9, lambda: EPOCH)
    keeper.end("a", "v1")
    assert (keeper.is_on, keeper.place("a", "v1", "v1")) == (False, "")
    asyncio.run(keeper.run())
