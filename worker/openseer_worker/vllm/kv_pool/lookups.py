"""The scheduler's side of the connector: finds a request's blocks in the pool, and the blocks that the engine has
filled.

All methods run between two steps of the engine, so they do not wait for the pool while the engine has other work.
Threads query the pool, and a request is scheduled after the answer.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from openseer_worker.kv_pool.block_store import BlockStore
from openseer_worker.kv_pool.breaker import Breaker
from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.rates import Rates
from openseer_worker.vllm.kv_pool.arguments import KV_PLACE
from openseer_worker.vllm.kv_pool.steps import IDLE_SECONDS, BlocksOf, PoolStep

LOOKUP_SECONDS = 1.0
"""Timeout of the pool's answer, in seconds; after it the request's context is computed."""
LOOKUP_THREADS = 2
MOST_PLACES = 10_000
"""Limit of remembered groups whose first blocks this engine has written; for other groups it writes them again."""


@dataclass(slots=True)
class _Request:
    """The state of a request. `kept`: number of leading blocks that are in the pool or being written; -1 before the
    first step. `first`: index of the first block to fetch. `found`: the running or last lookup, begun at `asked_at`.
    `tried`: no further lookup is needed. `is_fetched`: blocks were fetched."""

    request: Any
    place: str
    kept: int = -1
    first: int = 0
    found: Future[int] | None = None
    asked_at: float = 0.0
    tried: bool = False
    is_fetched: bool = False


@dataclass(slots=True)
class _Load:
    """A running fetch of `tokens` tokens into the blocks `ids`. `failed`: some blocks did not arrive."""

    begun_at: float
    tokens: int
    ids: list[int]
    failed: bool = False


class Lookups:
    """Looks up the blocks of an engine's requests. `pool`: the fleet's; `layout`: digest of the engine's block format;
    `ranks`: number of parts of each block; `block`: tokens per block.

    If the pool has fewer than `least_tokens` tokens beyond the engine's own cache, they are not fetched.
    """

    def __init__(self, pool: BlockStore, layout: str, ranks: int, block: int, least_tokens: int) -> None:
        self._pool = pool
        self._layout = layout
        self._ranks = ranks
        self._block = block
        self._least = max(1, least_tokens // block)
        self._requests: dict[str, _Request] = {}
        self._loading: dict[str, _Load] = {}
        self._begun: dict[str, None] = {}
        self._breaker = Breaker()
        self._threads = DaemonThreads(LOOKUP_THREADS, "openseer-kv-lookup")
        self._rates = Rates()
        self._step = PoolStep()
        # The first use may load a library and connect, which may take longer than LOOKUP_SECONDS.
        self._threads.submit(pool.count_present, "", [], layout, ranks)

    def close(self) -> None:
        """Ends the threads that query the pool, without waiting for a hanging thread."""
        self._threads.close()

    def add(self, request: Any) -> None:
        """Adds a new request (vLLM's object, whose tokens and block hashes grow), if it has a place in the pool."""
        params = request.sampling_params
        place = (params.extra_args or {}).get(KV_PLACE, "") if params is not None else ""
        if place:
            self._requests[request.request_id] = _Request(request, place)

    def end(self, request_id: str) -> None:
        """Removes a request that has ended, for any reason."""
        known = self._requests.pop(request_id, None)
        if known is not None and known.found is not None:
            known.found.cancel()
        if known is not None:
            self._step.gone.append(request_id)

    def find(self, request: Any, computed: int) -> tuple[int | None, bool]:
        """Returns the number of tokens after the first `computed` that the pool has, None while the lookup runs; and
        whether they are fetched beside the steps."""
        known = self._requests.get(request.request_id)
        if known is None or known.tried:
            return 0, False
        first = computed // self._block
        # The last token is always computed, because its logits give the next token.
        end = min((request.num_tokens - 1) // self._block, len(request.block_hashes))
        if end - first < self._least:
            return 0, False
        if known.found is None or known.first != first:
            if self._breaker.is_out or not self._rates.worth_a_fetch():
                known.tried = True
                return 0, False
            if known.found is not None:
                known.found.cancel()
            known.first, known.asked_at = first, time.monotonic()
            hashes = self._hashes(request, first, end)
            known.found = self._threads.submit(self._pool.count_present, known.place, hashes, self._layout, self._ranks)
        count = self._answer(known)
        if count is None:
            return None, False
        known.tried = count == 0  # otherwise vLLM calls again until it has blocks for the found tokens
        return count * self._block, count > 0

    def _answer(self, known: _Request) -> int | None:
        assert known.found is not None
        if not known.found.done():
            if time.monotonic() - known.asked_at < LOOKUP_SECONDS:
                return None
            known.found.cancel()
            self._breaker.failed(f"no answer within {LOOKUP_SECONDS:g} s")
            return 0
        error = known.found.exception()
        if error is not None:
            self._breaker.failed(str(error))
            return 0
        count = known.found.result()
        if count >= self._least:
            return count
        self._breaker.succeeded()
        return 0

    def allocated(self, request: Any, ids: Sequence[int], tokens: int) -> None:
        """Notes that vLLM has reserved blocks for the `tokens` of `find`; `ids`: all blocks of the request so far."""
        known, count = self._requests[request.request_id], tokens // self._block
        first, known.tried, known.is_fetched = known.first, True, True
        hashes = self._hashes(request, first, first + count)
        blocks = BlocksOf(request.request_id, known.place, hashes, list(ids[first : first + count]), first)
        self._loading[request.request_id] = _Load(time.monotonic(), tokens, blocks.ids)
        self._step.loads.append(blocks)

    def note(self, ended: Iterable[str], missing: Iterable[int]) -> None:
        """Notes fetches that have `ended`, and blocks that are `missing`: of these fetches or, with several ranks, of
        other fetches."""
        if gone := set(missing):
            for load in self._loading.values():
                load.failed |= not gone.isdisjoint(load.ids)
        for request_id in ended:
            load = self._loading.pop(request_id, None)
            if load is None or request_id not in self._requests:
                continue  # the request ended before its fetch, which is therefore no sign of the pool's state
            if load.failed:
                self._breaker.failed("blocks did not arrive")
            else:
                self._breaker.succeeded()
                self._rates.fetched(load.tokens, time.monotonic() - load.begun_at)

    def step(self, output: Any) -> PoolStep:
        """Returns the work of the worker's side in a step. `output`: vLLM's SchedulerOutput."""
        step, self._step = self._step, PoolStep()
        step.idle = output.total_num_scheduled_tokens == 0
        step.gone += [name for name in output.preempted_req_ids or () if name in self._requests]
        self._rates.step(output.total_num_scheduled_tokens, time.monotonic())
        if step.idle:
            self._wait()
        for request_id in output.num_scheduled_tokens:
            known = self._requests.get(request_id)
            if known is None:
                continue
            # Only tokens of earlier steps count: this step may compute drafts that are rejected.
            full = min(known.request.num_computed_tokens // self._block, len(known.request.block_hashes))
            if known.kept < 0:
                # A request's first blocks are from the pool or from the engine's own cache. In the cache, requests of
                # other groups may have computed them, so the group's folder may lack them.
                known.kept = full
                own = min(full, known.first) if known.is_fetched else full
                if self._begins(known.place) and own:
                    step.saves.append(self._blocks_of(known, 0, own, output))
            if full > known.kept:
                step.saves.append(self._blocks_of(known, known.kept, full, output))
                known.kept = full
        return step

    def _begins(self, place: str) -> bool:
        """Whether this is the engine's first request of a group at `place`, among the remembered groups; notes it."""
        if place in self._begun:
            return False
        if len(self._begun) >= MOST_PLACES:
            del self._begun[next(iter(self._begun))]
        self._begun[place] = None
        return True

    def _blocks_of(self, known: _Request, first: int, end: int, output: Any) -> BlocksOf:
        """Returns the blocks `first` to `end` of a request in a step. `output`: vLLM's SchedulerOutput."""
        name = known.request.request_id
        ids = output.kv_connector_block_state.get_block_ids(name)[0]
        return BlocksOf(name, known.place, self._hashes(known.request, first, end), list(ids[first:end]), first)

    def _wait(self) -> None:
        """Waits for an answer of the pool, at most IDLE_SECONDS. For an engine without other work."""
        waiting = [known.found for known in self._requests.values() if known.found is not None and not known.tried]
        asked = [found for found in waiting if not found.done()]
        if asked:
            wait(asked, IDLE_SECONDS, FIRST_COMPLETED)

    def _hashes(self, request: Any, first: int, end: int) -> list[str]:
        return [block.hex() for block in request.block_hashes[first:end]]
