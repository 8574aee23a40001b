"""The worker's side of the connector: one engine fetches another's blocks, and a failing pool is disabled."""

# pyright: reportPrivateUsage=false

import functools
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_worker.kv_pool import breaker, directory, free_space
from openseer_worker.kv_pool.breaker import FAILURES
from openseer_worker.kv_pool.directory import DirectoryBlocks
from openseer_worker.vllm.environment import is_cpu_build, prepare
from tests.worker.vllm.kv_pool.hanging import hanging
from tests.worker.vllm.kv_pool.lazy import torch

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

BLOCKS, TOKENS = 64, 16
PLACE = "5/version/group"
HASHES = [f"{number:02x}" for number in range(BLOCKS)]


@functools.cache
def side_module() -> Any:
    prepare()
    from openseer_worker.vllm.kv_pool import transfers  # noqa: PLC0415 - heavy

    return transfers


def blocks_of(request: str, hashes: list[str], ids: list[int], first: int = 0) -> Any:
    return side_module().BlocksOf(request, PLACE, hashes, ids, first)


def step(**parts: Any) -> Any:
    return side_module().PoolStep(**parts)


class Side:
    """One engine's cache and its transfers."""

    def __init__(self, folder: Path, seed: int | None = None, rank: int = 0) -> None:
        random = torch.Generator().manual_seed(seed or 0)
        shape = (2, BLOCKS, 4)
        make = (lambda: torch.zeros(shape)) if seed is None else (lambda: torch.randn(shape, generator=random))
        self.caches = {"first": make(), "second": make()}
        self.transfers = side_module().Transfers(DirectoryBlocks(folder), "layout", rank, TOKENS)
        self.transfers.begin(self.caches, BLOCKS)

    def block(self, number: int) -> list[Any]:
        return [cache[:, number].clone() for cache in self.caches.values()]

    def keep(self, ids: list[int], hashes: list[str], first: int = 0) -> None:
        self.transfers.save(step(saves=[blocks_of("one", hashes, ids, first)]))

    def fetch(self, ids: list[int], hashes: list[str], request: str = "two") -> set[int]:
        """Fetches blocks and returns the missing ones."""
        self.transfers.start(step(loads=[blocks_of(request, hashes, ids)]))
        wait(lambda: request in self.transfers.take_ended(step(idle=True)))
        return self.transfers.take_missing()


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "not within the time limit"
        time.sleep(0.001)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """One side with computed blocks, and one without."""
    both = Side(tmp_path, seed=1), Side(tmp_path)
    yield both
    for side in both:
        side.transfers.close()


def kept(folder: Path, count: int) -> None:
    wait(lambda: len(list((folder / PLACE).glob("[!.]*"))) == count)


def test_blocks_stored_by_one_engine_are_fetched_by_another(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first, second = sides
    count = 2 * side_module().PIECE_BLOCKS + 3
    first.keep(list(range(count)), HASHES[:count])
    kept(tmp_path, count)
    ids = list(range(BLOCKS - 1, BLOCKS - 1 - count, -1))
    assert second.fetch(ids, HASHES[:count]) == set()
    for number, block in enumerate(ids):
        assert all(map(torch.equal, second.block(block), first.block(number)))
    counts = second.transfers.take_counts()
    assert counts is not None
    assert counts.data["fetched"] == count * TOKENS
    assert counts.data["fetched_bytes"] == count * 2 * 2 * 4 * 4


def test_blocks_before_a_wrong_one_are_loaded_and_the_rest_is_missing(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first, second = sides
    first.keep([0, 1, 2], HASHES[:3])
    kept(tmp_path, 3)
    wrong = tmp_path / PLACE / "01.layout.0"
    wrong.write_bytes(wrong.read_bytes()[:-1] + b"\xff")
    assert second.fetch([7, 8, 9], HASHES[:3]) == {8, 9}
    assert all(map(torch.equal, second.block(7), first.block(0)))
    assert not any(part.any() for number in (8, 9) for part in second.block(number))
    counts = second.transfers.take_counts()
    assert counts is not None
    assert counts.data["failed_fetches"] == 1


def test_removed_blocks_are_reported_as_missing(sides: tuple[Side, Side]) -> None:
    assert sides[1].fetch([3, 4], HASHES[:2]) == {3, 4}


def test_a_hanging_read_is_abandoned_and_writes_nothing_later(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module(), "STUCK_SECONDS", 0.2)
    first, second = sides
    first.keep([0], HASHES[:1])
    kept(tmp_path, 1)
    with hanging(tmp_path / PLACE) as release:
        assert second.fetch([5], HASHES[:1]) == {5}
        # The engine may have assigned this block to another request.
        for cache in second.caches.values():
            cache[:, 5] = 3.0
        release.set()
        wait(lambda: not any("kv-load" in thread.name and is_reading(thread) for thread in threading.enumerate()))
        assert all(bool((part == 3.0).all()) for part in second.block(5))


def test_waiting_fetches_do_not_count_as_hanging(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many responses arrive at once: a pool that is fast enough for each fetches all."""
    monkeypatch.setattr(side_module(), "TURN_SECONDS", 60.0)
    first, second = sides
    first.keep([0], HASHES[:1])
    kept(tmp_path, 1)
    read_block = directory.read_block

    def read(path: Path, into: memoryview) -> None:
        time.sleep(0.2)
        read_block(path, into)

    monkeypatch.setattr(directory, "read_block", read)
    names = {f"request {number}" for number in range(30)}
    second.transfers.start(step(loads=[blocks_of(name, HASHES[:1], [5]) for name in sorted(names)]))
    ended: set[str] = set()

    def all_ended() -> bool:
        ended.update(second.transfers.take_ended(step(idle=True)))
        return ended == names

    wait(all_ended)
    assert second.transfers.take_missing() == set()


def test_a_fetch_without_a_turn_is_abandoned(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module(), "TURN_SECONDS", 0.1)
    second, threads = sides[1], side_module().LOAD_THREADS
    with hanging(tmp_path / PLACE):
        second.transfers.start(
            step(loads=[blocks_of(f"first {number}", HASHES[:1], [5 + number]) for number in range(threads)])
        )
        assert second.fetch([9], HASHES[:1]) == {9}, "a hanging fetch was abandoned before it"


def is_reading(thread: threading.Thread) -> bool:
    """Whether a thread is still in a fetch."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and any(entry.name == "_fetch" for entry in traceback.extract_stack(frame))


def test_a_fetch_of_an_ended_request_ends_at_once(sides: tuple[Side, Side], tmp_path: Path) -> None:
    second = sides[1]
    with hanging(tmp_path / PLACE):
        second.transfers.start(step(loads=[blocks_of("two", HASHES[:1], [5])]))
        assert second.transfers.take_ended(step()) == set()
        second.transfers.start(step(gone=["two"]))
        assert second.transfers.take_ended(step()) == {"two"}
        assert second.transfers.take_missing() == set(), "an ended request's fetch was reported"


def test_blocks_are_copied_before_the_engine_uses_them_again(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first, second = sides
    original = first.block(0)
    first.keep([0], HASHES[:1])
    for cache in first.caches.values():
        cache.zero_()
    kept(tmp_path, 1)
    assert second.fetch([9], HASHES[:1]) == set()
    assert all(map(torch.equal, second.block(9), original))


def test_each_rank_stores_and_fetches_its_own_part(tmp_path: Path) -> None:
    ranks = [Side(tmp_path, seed=1 + rank, rank=rank) for rank in range(2)]
    for rank in ranks:
        rank.keep([0], HASHES[:1])
    kept(tmp_path, 2)
    other = Side(tmp_path, rank=1)
    assert other.fetch([4], HASHES[:1]) == set()
    assert all(map(torch.equal, other.block(4), ranks[1].block(0)))
    for side in (*ranks, other):
        side.transfers.close()


def test_blocks_beyond_the_buffer_are_stored_in_later_steps(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sides
    block_bytes = sum(part.numel() * part.element_size() for part in first.block(0))
    monkeypatch.setattr(side_module(), "UNSAVED_BYTES", 3 * block_bytes)
    first.keep(list(range(8)), HASHES[:8])

    def all_are_kept() -> bool:
        first.transfers.save(step())
        return len(list((tmp_path / PLACE).glob("[!.]*"))) == 8

    wait(all_are_kept)
    assert unsaved(first) == 0
    assert second.fetch(list(range(10, 18)), HASHES[:8]) == set()
    assert all(map(torch.equal, second.block(17), first.block(7)))


@pytest.mark.parametrize("gone", ["one", "another"])
def test_blocks_waiting_for_room_are_stored_only_while_their_request_runs(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    first = sides[0]
    monkeypatch.setattr(side_module(), "UNSAVED_BYTES", 0)
    first.keep([0, 1], HASHES[:2])
    assert unsaved(first) == 0
    first.transfers.save(step(gone=[gone]))
    assert unsaved(first) == (2 if gone == "one" else 0)
    first.transfers.give_up()
    assert unsaved(first) == (0 if gone == "one" else 2)


def test_a_pool_that_refuses_writes_is_disabled(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first = sides[0]
    (tmp_path / "5").write_text("a file in the place of the folder")
    for number in range(FAILURES):
        first.keep([number], HASHES[number : number + 1])
        wait(lambda: unsaved(first) == 1)
    first.keep([9], HASHES[9:10])
    assert unsaved(first) == 1, "the block was written although the pool is disabled"


def unsaved(side: Side) -> int:
    """Number of blocks that were not stored since the last call."""
    counts = side.transfers.take_counts()
    return 0 if counts is None else int(counts.data.get("unsaved_blocks", 0))


def test_blocks_of_a_removed_group_are_not_stored(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first = sides[0]
    for number in range(FAILURES + 1):
        first.keep([number], HASHES[number : number + 1], first=7)
        wait(lambda: unsaved(first) == 1)
    assert not (tmp_path / PLACE).exists(), "unusable blocks would stay in the pool"
    first.keep([0], HASHES[:1])
    kept(tmp_path, 1)  # this does not disable the pool


def test_a_vanished_pool_is_written_to_again_after_its_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "OUT_SECONDS", 0.05)
    monkeypatch.setattr(free_space, "LOOK_SECONDS", 0.0)
    pool = tmp_path / "pool"
    pool.mkdir()
    side = Side(pool / "fleet", seed=1)
    side.keep([0], HASHES[:1])
    kept(pool / "fleet", 1)
    shutil.rmtree(pool)
    for _ in range(FAILURES + 2):
        side.keep([1], HASHES[1:2])
        wait(lambda: unsaved(side) == 1)
    assert not pool.exists(), "the pool was created again on the disk below"
    pool.mkdir()

    def is_kept() -> bool:
        side.keep([2], HASHES[2:3])
        return (pool / "fleet" / PLACE / "02.layout.0").exists()

    wait(is_kept)
    assert (pool / "fleet").stat().st_mode & 0o777 == 0o700
    side.transfers.close()


def test_a_block_in_anothers_place_is_never_loaded(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first, second = sides
    first.keep([0, 1, 2], HASHES[:3])
    kept(tmp_path, 3)
    names = [tmp_path / PLACE / f"0{number}.layout.0" for number in range(3)]
    shutil.copyfile(names[2], names[1])
    assert second.fetch([7, 8, 9], HASHES[:3]) == {8, 9}
    assert not any(part.any() for part in second.block(8))
    first.keep([1], HASHES[1:2])
    kept(tmp_path, 3)
    assert second.fetch([7, 8, 9], HASHES[:3], "again") == set()
    assert all(map(torch.equal, second.block(8), first.block(1)))
