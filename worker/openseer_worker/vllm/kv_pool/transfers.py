"""The worker's side of the connector: threads that fetch blocks into the engine's KV cache and write full ones.

A fetch first fills a buffer of its own, and copies it to the KV cache under a lock, unless the fetch was cancelled. So
a hanging read can be abandoned: the engine computes the contents of the blocks itself, or gives the blocks to other
requests.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch

from openseer_worker.kv_pool.block_store import BlockStore
from openseer_worker.kv_pool.blocks import BadBlockError
from openseer_worker.kv_pool.breaker import Breaker
from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.places import block_name
from openseer_worker.vllm.kv_pool.block_tensors import BlockTensors
from openseer_worker.vllm.kv_pool.counts import PoolCounts
from openseer_worker.vllm.kv_pool.steps import IDLE_SECONDS, BlocksOf, PoolStep

_LOG = logging.getLogger(__name__)
LOAD_THREADS = 2
PIECE_BLOCKS = 16
"""Number of blocks in a fetch's buffer, which is one piece."""
STUCK_SECONDS = 2.0
"""Timeout of a fetch's next piece, in seconds. While a fetch waits for a thread, the pieces of all fetches count."""
TURN_SECONDS = 10.0
"""Timeout of a fetch that waits for a thread, in seconds."""
UNSAVED_BYTES = 256 * 2**20
"""Limit of memory for copied blocks that wait to be written, in bytes; further blocks wait in the KV cache."""


class _Fetch:
    """A fetch. `lock`: held during a write to the KV cache and during a cancel; `fetched`: number of its blocks in the
    KV cache; `has_turn`: a thread runs it; `failure`: the reason why it did not fetch all blocks."""

    def __init__(self, blocks: BlocksOf) -> None:
        self.blocks = blocks
        self.lock = threading.Lock()
        self.fetched = 0
        self.begun = self.moved_at = time.monotonic()
        self.has_turn = self.is_over = False
        self.failure = ""


class Transfers:
    """Fetches and writes this rank's parts of blocks. `pool`: the fleet's; `layout`: digest of the block format;
    `tokens`: tokens per block."""

    def __init__(self, pool: BlockStore, layout: str, rank: int, tokens: int) -> None:
        self._pool = pool
        self._layout = layout
        self._rank = rank
        self._tokens = tokens
        self._tensors: BlockTensors | None = None
        self._fetches: dict[str, _Fetch] = {}
        self._missing: set[int] = set()
        self._moved_at = 0.0  # time of the last piece, or end, of any fetch
        self._changed = threading.Event()
        self._threads = DaemonThreads(LOAD_THREADS, "openseer-kv-load")
        self._unsaved: queue.SimpleQueue[tuple[BlocksOf, torch.Tensor, torch.Event | None] | None] = queue.SimpleQueue()
        self._unsaved_bytes = 0
        self._uncopied: deque[BlocksOf] = deque()
        self._counting = threading.Lock()
        self._counts = PoolCounts()
        self._breaker = Breaker()
        self._saver = threading.Thread(target=self._save_all, name="openseer-kv-save", daemon=True)

    def begin(self, caches: dict[str, torch.Tensor], blocks: int) -> None:
        """Begins with the engine's KV caches, by layer, of `blocks` blocks each. Raises ValueError for caches whose
        blocks cannot be identified."""
        self._tensors = BlockTensors(caches, blocks)
        self._saver.start()

    def close(self) -> None:
        """Ends the threads, without waiting for a thread that hangs in the pool."""
        self._unsaved.put(None)
        self._threads.close()

    def take_counts(self) -> PoolCounts | None:
        """Returns the counts since the last call; None if there are none."""
        with self._counting:
            counts, self._counts = self._counts, PoolCounts()
        return None if counts.is_empty() else counts

    def _count(self, **amounts: float) -> None:
        with self._counting:
            for name, amount in amounts.items():
                self._counts.add(name, amount)

    # ---- fetching

    def start(self, step: PoolStep) -> None:
        """Begins the fetches of a step, and cancels the fetches of requests that have lost their blocks."""
        for request in step.gone:
            if (fetch := self._fetches.get(request)) is not None:
                self._give_up(fetch, "")
        for blocks in step.loads:
            fetch = self._fetches[blocks.request] = _Fetch(blocks)
            self._threads.submit(self._fetch, fetch)

    def give_up(self) -> None:
        """Cancels all fetches and drops the blocks that are not copied yet. Afterwards no thread uses the KV cache, so
        it may be freed."""
        for fetch in self._fetches.values():
            self._give_up(fetch, "the KV cache is about to change")
        self._keep_if(lambda _: False)

    def take_ended(self, step: PoolStep) -> set[str]:
        """Returns the requests whose fetches have ended, completely or in part, since the last call."""
        if step.idle and self._fetches and not any(fetch.is_over for fetch in self._fetches.values()):
            self._changed.wait(IDLE_SECONDS)
        self._changed.clear()
        now = time.monotonic()
        for fetch in self._fetches.values():
            if not fetch.is_over and (failure := self._hangs(fetch, now)):
                self._give_up(fetch, failure)
        ended = {request for request, fetch in self._fetches.items() if fetch.is_over}
        for request in ended:
            self._take(self._fetches.pop(request))
        return ended

    def _hangs(self, fetch: _Fetch, now: float) -> str:
        """Returns the reason to cancel a fetch, or "". A wait for other fetches is no failure of the pool, unless it
        exceeds TURN_SECONDS."""
        moved_at = fetch.moved_at if fetch.has_turn else max(fetch.moved_at, self._moved_at)
        if now - moved_at > STUCK_SECONDS:
            return f"no block arrived for {STUCK_SECONDS:g} s"
        if not fetch.has_turn and now - fetch.begun > TURN_SECONDS:
            return f"no thread was free within {TURN_SECONDS:g} s"
        return ""

    def take_missing(self) -> set[int]:
        """Returns the ids of blocks that ended fetches did not deliver, since the last call."""
        missing, self._missing = self._missing, set()
        return missing

    def _take(self, fetch: _Fetch) -> None:
        blocks, fetched = fetch.blocks, fetch.fetched
        if fetch.failure:
            self._missing.update(blocks.ids[fetched:])
        assert self._tensors is not None
        self._count(
            fetched=0 if self._rank else fetched * self._tokens,
            fetched_bytes=fetched * self._tensors.block_bytes,
            fetch_seconds=fetch.moved_at - fetch.begun,
            failed_fetches=int(bool(fetch.failure)),
        )
        if fetch.failure:
            came = f"{fetched} of {len(blocks.ids)} KV blocks were fetched from the pool"
            _LOG.warning("%s: %s: %s", blocks.request, came, fetch.failure)

    def _give_up(self, fetch: _Fetch, failure: str) -> None:
        with fetch.lock:
            if not fetch.is_over:
                fetch.failure, fetch.is_over = failure, True

    def _fetch(self, fetch: _Fetch) -> None:
        failure = ""
        fetch.has_turn, fetch.moved_at = True, time.monotonic()
        try:
            for start, rows in self._read(fetch):
                with fetch.lock:
                    if fetch.is_over:
                        return
                    self._put(rows, fetch.blocks.ids[start : start + len(rows)])
                    self._moved_at = fetch.moved_at = time.monotonic()
                    fetch.fetched = start + len(rows)
        except (OSError, BadBlockError) as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - after any error the engine must not wait for this fetch
            _LOG.exception("a fetch of KV blocks failed")
            failure = str(error) or type(error).__name__
        self._give_up(fetch, failure)
        self._moved_at = time.monotonic()
        self._changed.set()

    def _read(self, fetch: _Fetch) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields the pieces of a fetch: the index of the piece's first block, and rows of bytes as in BlockTensors.

        Raises OSError or BadBlockError, after yielding the blocks before the missing or damaged one.
        """
        assert self._tensors is not None
        hashes = fetch.blocks.hashes
        for start in range(0, len(hashes), PIECE_BLOCKS):
            names = self._names(hashes[start : start + PIECE_BLOCKS])
            rows = torch.empty((len(names), self._tensors.block_bytes), dtype=torch.uint8)
            filled = 0
            try:
                for _ in self._pool.read(fetch.blocks.place, names, _bytes_of(rows)):
                    if fetch.is_over:
                        return
                    filled += 1
            except (OSError, BadBlockError):
                if filled:
                    yield start, rows[:filled]
                raise
            yield start, rows

    def _put(self, rows: torch.Tensor, ids: list[int]) -> None:
        assert self._tensors is not None
        if self._tensors.device.type == "cpu":
            self._tensors.put(rows, ids)
            return
        stream = torch.Stream(self._tensors.device)  # not the engine's stream: the engine does not use these blocks yet
        with stream:
            self._tensors.put(rows, ids)
        stream.synchronize()

    # ---- keeping

    def save(self, step: PoolStep) -> None:
        """Copies full blocks out of the KV cache, for a thread to write. Called after a step's computation."""
        self._uncopied += step.saves
        gone = set(step.gone)  # from this step on, other requests may have the blocks of these requests
        is_out = self._breaker.is_out
        self._keep_if(lambda blocks: not is_out and blocks.request not in gone)
        assert self._tensors is not None
        while self._uncopied:
            room = (UNSAVED_BYTES - self._unsaved_bytes) // self._tensors.block_bytes
            if room <= 0:
                return
            head, rest = self._uncopied.popleft().split(room)
            if rest.ids:
                self._uncopied.appendleft(rest)
            self._copy(head, self._tensors)

    def _keep_if(self, may_stay: Callable[[BlocksOf], bool]) -> None:
        """Drops the blocks that wait to be copied, except those for which `may_stay` returns True."""
        waiting, self._uncopied = self._uncopied, deque[BlocksOf]()
        for blocks in waiting:
            if may_stay(blocks):
                self._uncopied.append(blocks)
            else:
                self._count(unsaved_blocks=len(blocks.ids))

    def _copy(self, blocks: BlocksOf, tensors: BlockTensors) -> None:
        rows, copied = tensors.take(blocks.ids), None
        if tensors.device.type != "cpu":
            host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            rows = host.copy_(rows, non_blocking=True)
            copied = torch.Event(tensors.device)
            copied.record()
        with self._counting:
            self._unsaved_bytes += rows.numel()
        self._unsaved.put((blocks, rows, copied))

    def _save_all(self) -> None:
        while (item := self._unsaved.get()) is not None:
            blocks, rows, copied = item
            if copied is not None:
                copied.synchronize()
            self._write(blocks, rows)
            with self._counting:
                self._unsaved_bytes -= rows.numel()

    def _write(self, blocks: BlocksOf, rows: torch.Tensor) -> None:
        seen = written = 0
        names, begins = self._names(blocks.hashes), blocks.first == 0
        try:
            for is_new in self._pool.write(blocks.place, names, _bytes_of(rows), begins=begins):
                written += is_new
                seen += 1
            self._breaker.succeeded()
        except OSError as error:
            self._count(unsaved_blocks=len(blocks.ids) - seen)
            if begins or not isinstance(error, FileNotFoundError):
                self._breaker.failed(str(error))
                _LOG.warning("KV blocks are not written to the pool: %s", error)
            # Otherwise the group was removed: without its earlier blocks these blocks would be useless.
        self._count(saved_bytes=written * rows.shape[1])

    def _names(self, hashes: Sequence[str]) -> list[str]:
        return [block_name(name, self._layout, self._rank) for name in hashes]


def _bytes_of(rows: torch.Tensor) -> list[memoryview]:
    return [row.numpy().data for row in rows]
