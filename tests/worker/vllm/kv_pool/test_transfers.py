"""The worker's side of the connector: what one keeps another fetches, and a pool that fails is left behind."""

# pyright: reportPrivateUsage=false

import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_worker.kv_pool.breaker import FAILURES
from openseer_worker.kv_pool.directory import DirectoryBlocks
from openseer_worker.vllm.environment import is_cpu_build, prepare
from tests.worker.vllm.kv_pool.lazy import torch

pytestmark = [
    pytest.mark.engine,
    # Of vLLM, torch and the compiled modules below them, at import.
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


def blocks_of(request: str, hashes: list[str], ids: list[int]) -> Any:
    return side_module().BlocksOf(request, PLACE, hashes, ids)


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

    def keep(self, ids: list[int], hashes: list[str]) -> None:
        self.transfers.save(step(saves=[blocks_of("one", hashes, ids)]))

    def fetch(self, ids: list[int], hashes: list[str], request: str = "two") -> set[int]:
        """The blocks that did not come."""
        self.transfers.start(step(loads=[blocks_of(request, hashes, ids)]))
        wait(lambda: request in self.transfers.take_ended(step(idle=True)))
        return self.transfers.take_missing()


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.001)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    """One that has computed blocks, and one that has not."""
    both = Side(tmp_path, seed=1), Side(tmp_path)
    yield both
    for side in both:
        side.transfers.close()


def kept(folder: Path, count: int) -> None:
    wait(lambda: len(list((folder / PLACE).glob("[!.]*"))) == count)


def test_what_one_keeps_another_fetches(sides: tuple[Side, Side], tmp_path: Path) -> None:
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
    assert counts.data["loaded_tokens"] == count * TOKENS
    assert counts.data["load_bytes"] == count * 2 * 2 * 4 * 4


def test_blocks_before_a_wrong_one_come_and_the_rest_is_missing(sides: tuple[Side, Side], tmp_path: Path) -> None:
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
    assert counts.data["failed_loads"] == 1


def test_blocks_that_are_gone_are_missing(sides: tuple[Side, Side]) -> None:
    assert sides[1].fetch([3, 4], HASHES[:2]) == {3, 4}


def test_a_read_that_hangs_is_given_up_and_writes_nothing_later(
    sides: tuple[Side, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module(), "STUCK_SECONDS", 0.2)
    first, second = sides
    first.keep([0], HASHES[:1])
    kept(tmp_path, 1)
    whole = (tmp_path / PLACE / "00.layout.0").read_bytes()
    pipe = tmp_path / PLACE / "01.layout.0"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    try:
        assert second.fetch([5, 6], HASHES[:2]) == {5, 6}
        # The engine may have given these blocks to another request by now.
        for cache in second.caches.values():
            cache[:, 5:7] = 3.0
        os.write(held, whole)
        wait(lambda: not any("kv-load" in thread.name and is_reading(thread) for thread in threading.enumerate()))
        assert all(bool((part == 3.0).all()) for number in (5, 6) for part in second.block(number))
    finally:
        os.close(held)


def is_reading(thread: threading.Thread) -> bool:
    """Whether a thread of fetches is still within one."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and any(entry.name == "_fetch" for entry in traceback.extract_stack(frame))


def test_a_fetch_nobody_waits_for_ends_at_once(sides: tuple[Side, Side], tmp_path: Path) -> None:
    second = sides[1]
    (tmp_path / PLACE).mkdir(parents=True)
    pipe = tmp_path / PLACE / "00.layout.0"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)
    try:
        second.transfers.start(step(loads=[blocks_of("two", HASHES[:1], [5])]))
        assert second.transfers.take_ended(step()) == set()
        second.transfers.start(step(cancelled=["two"]))
        assert second.transfers.take_ended(step()) == {"two"}
        assert second.transfers.take_missing() == set(), "nobody needs to know"
    finally:
        os.write(held, bytes(64))
        os.close(held)


def test_blocks_are_copied_before_the_engine_uses_them_again(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first, second = sides
    original = first.block(0)
    first.keep([0], HASHES[:1])
    for cache in first.caches.values():
        cache.zero_()
    kept(tmp_path, 1)
    assert second.fetch([9], HASHES[:1]) == set()
    assert all(map(torch.equal, second.block(9), original))


def test_each_rank_keeps_and_fetches_its_own_part(tmp_path: Path) -> None:
    ranks = [Side(tmp_path, seed=1 + rank, rank=rank) for rank in range(2)]
    for rank in ranks:
        rank.keep([0], HASHES[:1])
    kept(tmp_path, 2)
    other = Side(tmp_path, rank=1)
    assert other.fetch([4], HASHES[:1]) == set()
    assert all(map(torch.equal, other.block(4), ranks[1].block(0)))
    for side in (*ranks, other):
        side.transfers.close()


def test_blocks_beyond_the_memory_for_them_are_not_kept(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_module(), "UNSAVED_BYTES", 0)
    first = sides[0]
    first.keep([0, 1], HASHES[:2])
    counts = first.transfers.take_counts()
    assert counts is not None
    assert counts.data == {"unsaved_blocks": 2}


def test_a_pool_that_takes_nothing_is_left_alone(sides: tuple[Side, Side], tmp_path: Path) -> None:
    first = sides[0]
    (tmp_path / "5").write_text("a file in the place of the folder")
    unsaved = 0

    def take() -> int:
        counts = first.transfers.take_counts()
        return 0 if counts is None else int(counts.data.get("unsaved_blocks", 0))

    for number in range(FAILURES):
        first.keep([number], HASHES[number : number + 1])
        expected = unsaved + 1
        while unsaved < expected:
            unsaved += take()
            time.sleep(0.001)
    first.keep([9], HASHES[9:10])
    assert take() == 1, "it was tried although the pool is out"
