"""An engine that plays responses of given lengths by a step-time model: for studies, simulation and tests.

The engine follows vLLM's rules of slots, blocks and preemption, on the clock of the running event loop. It does no work
per token: a step increments a counter, steps in which no request ends are played as one, and tokens are computed when
they are collected.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openseer_core.admission import SCRIPTED_VOCABULARY
from openseer_core.errors import EngineError, LoadError
from openseer_core.manifest.job import Scripted
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import ITEM_BYTES, count_items, pack_tokens, unpack_tokens
from openseer_core.weights.fleet_spec import MEMORY_PARTS, MemoryPart
from openseer_worker.engine import DraftNews, EngineOutput, EngineProfile, EngineRequest, NewAdapter, NewWeights
from openseer_worker.scripted.contexts import ScriptedContexts
from openseer_worker.scripted.text import planned_end, recorded, scripted_logprobs, scripted_scores, scripted_tokens
from openseer_worker.weights.files import check_files
from openseer_worker.weights.hashing import digest

LOAD_SECONDS = 0.05
LOAD_BYTES_PER_SECOND = 2e9
"""Duration of a load of weights: LOAD_SECONDS plus their bytes at this rate."""
SCORE_SECONDS = 0.01
"""Duration of scoring a sequence, in seconds."""


@dataclass(slots=True, eq=False)
class _Play:
    """A request that the engine plays. While it runs it has `before + (steps - since)` new tokens.

    `target`: its new tokens at its end, for `reason`; `before`: those at the start of its slot, in step `since`;
    `collected`: those in outputs so far; `phase`: the step, modulo block_tokens, at which it takes a new block.
    """

    request: EngineRequest
    target: int
    reason: FinishReason
    before: int = 0
    since: int = 0
    collected: int = 0
    phase: int = 0
    finish: FinishReason | None = None

    @property
    def key(self) -> str:
        return self.request.key

    def context(self, new_tokens: int) -> int:
        """Returns the tokens of prompt and response after `new_tokens` new tokens."""
        return len(self.request.prompt) + len(self.request.tokens) + new_tokens


class ScriptedEngine:
    """Plays requests on the event loop in which `start` is called; `metrics` counts preemptions as vLLM would.

    The engine reports a sick GPU while the file `sick_file` exists. `most_steps`: number of steps after which it stops
    until `release`, so that a test can observe running requests.
    """

    drafts = False

    def __init__(self, scripted: Scripted, sick_file: Path | None = None, *, most_steps: float = math.inf) -> None:
        self._scripted, self._most_steps = scripted, most_steps
        self._sick_file = sick_file
        self.profile = EngineProfile(
            blocks=scripted.kv_blocks,
            layout=whole(scripted.block_tokens),
            slots=scripted.slots,
            context_tokens=scripted.max_model_len,
            device="none",
            engine="scripted",
            vocabulary=SCRIPTED_VOCABULARY,
            contexts_move=scripted.pool is not None,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], None] = _nobody
        self._timer: asyncio.TimerHandle | None = None
        self._failure: EngineError | None = None
        self._waiting: deque[_Play] = deque()
        self._running: dict[str, _Play] = {}
        self._ended: list[_Play] = []
        self._ends: list[tuple[int, str]] = []
        # _crossings[n % block_tokens]: number of running requests that take a new block at the start of step n.
        self._crossings = [0] * scripted.block_tokens
        self._used = 0
        self._contexts = ScriptedContexts(scripted)
        self._ends_at = 0.0
        self._steps = self._tokens = self._preemptions = 0
        self._content, self._whole = "", True
        self._asleep = set[MemoryPart]()
        self._adapters: dict[str, str] = {}

    def start(self, wake: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake
        if self._ended:
            self._loop.call_soon(wake)
        self._go_on()

    def release(self) -> None:
        """Resumes stepping after `most_steps`, and removes that limit. The time of the stop yields no steps."""
        self._most_steps = math.inf
        if self._loop is not None:
            self._ends_at = max(self._ends_at, self._loop.time())
        self._go_on()

    def add(self, request: EngineRequest) -> None:
        self._settle()
        if self._asleep or not self._whole:
            self._fail(f"request {request.key} cannot run: the engine sleeps, or has no weights")
        target, reason = planned_end(request, self.profile.request_tokens)
        play = _Play(request, target - len(request.tokens), reason)
        if request.adapter and request.adapter not in self._adapters:
            self._end(play, FinishReason.ABORTED)
        elif play.target <= 0:
            self._end(play, reason)
        else:
            self._waiting.append(play)
        self._go_on()

    def abort(self, key: str) -> None:
        self._settle()
        waiting = next((play for play in self._waiting if play.key == key), None)
        if waiting is not None:
            self._waiting.remove(waiting)
            self._end(waiting, FinishReason.ABORTED)
        elif key in self._running:
            self._end(self._stop(self._running[key], grown=True), FinishReason.ABORTED)
        self._go_on()

    def collect(self) -> list[EngineOutput]:
        self._settle()
        ended, self._ended = self._ended, []
        plays = [*self._running.values(), *self._waiting, *ended]
        progress = [self._output(play) for play in plays if play.finish or self._new_tokens(play) > play.collected]
        self._go_on()
        return progress

    def metrics(self) -> dict[str, float | int | str]:
        self._settle()
        return {
            "steps": self._steps,
            "tokens": self._tokens,
            "preemptions": self._preemptions,
            "running": len(self._running),
            "waiting": len(self._waiting),
            "kv_used": self._used / self.profile.blocks,
            **self._contexts.metrics(),
            **({"sick": f"{self._sick_file} exists"} if self._sick_file and self._sick_file.exists() else {}),
        }

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def feed(self, news: DraftNews) -> list[int]:
        return [new.position + count_items(new.tokens) for new in news.tokens]

    async def load_weights(self, weights: NewWeights) -> None:
        if "weights" in self._asleep:
            raise LoadError("the weights are not in memory: the engine sleeps")
        size, content = 0, ""
        if weights.folder is not None:
            size = await asyncio.to_thread(check_files, weights.folder)
            content = await asyncio.to_thread(digest, weights.folder)
        await asyncio.sleep(LOAD_SECONDS + size / LOAD_BYTES_PER_SECOND)
        self._content, self._whole = content, True
        self._adapters.clear()
        self._contexts.forget()

    async def load_adapter(self, adapter: NewAdapter) -> None:
        content = await asyncio.to_thread(digest, adapter.folder)
        await asyncio.sleep(LOAD_SECONDS)
        self._adapters[adapter.version] = content

    async def drop_adapter(self, version: str) -> None:
        self._adapters.pop(version, None)

    async def score(self, tokens: list[int], adapter: str = "") -> list[float]:
        await self.check_weights()
        await asyncio.sleep(SCORE_SECONDS)
        return scripted_scores(self._content + self._adapters.get(adapter, ""), tokens)

    async def sleep(self, *, keep_weights: bool) -> bool:
        self._contexts.forget()
        self._asleep = set(MEMORY_PARTS)
        self._whole = self._whole and keep_weights
        return False

    async def wake(self, *, weights_only: bool) -> None:
        self._asleep -= {"weights"} if weights_only else set(MEMORY_PARTS)

    async def check_weights(self) -> None:
        if self._asleep or not self._whole:
            raise LoadError("there are no weights, or no KV cache, to score with")

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        self._running.clear()
        self._waiting.clear()

    # Outputs and ends of requests.

    def _new_tokens(self, play: _Play) -> int:
        return play.before + (self._steps - play.since if play.key in self._running else 0)

    def _output(self, play: _Play) -> EngineOutput:
        request, begin, new_tokens = play.request, len(play.request.tokens), self._new_tokens(play)
        if request.sampling.score_from is not None:
            return self._scored(play, request.sampling.score_from)
        span = (request.group, request.index, begin + play.collected, begin + new_tokens)
        play.collected = new_tokens
        tokens = scripted_tokens(*span)
        logprobs = recorded(tokens, scripted_logprobs(*span), request.sampling)
        last = unpack_tokens(tokens[-ITEM_BYTES:]) if play.finish == FinishReason.STOP else []
        return EngineOutput(play.key, tokens, logprobs, play.finish, str(last[0]) if last else "")

    def _scored(self, play: _Play, start: int) -> EngineOutput:
        """Returns all given tokens if the prompt is computed; their scores depend on weights and positions alone."""
        given = play.request.prompt[start:] if play.finish is FinishReason.LENGTH else []
        content = self._content + self._adapters.get(play.request.adapter, "")
        logprobs = scripted_logprobs(content, 0, start, start + len(given))
        tokens = pack_tokens(given)
        play.collected = self._new_tokens(play)
        return EngineOutput(play.key, tokens, recorded(tokens, logprobs, play.request.sampling), play.finish)

    def _end(self, play: _Play, reason: FinishReason) -> None:
        play.finish = reason
        self._ended.append(play)
        if self._loop is not None:
            self._loop.call_soon(self._wake)

    def _stop(self, play: _Play, *, grown: bool) -> _Play:
        """Removes a request from its slot; its full blocks stay cached. `grown`: the request has its block for the
        present step."""
        new_tokens = self._new_tokens(play)
        context = play.context(new_tokens)
        del self._running[play.key]
        play.before = new_tokens
        self._crossings[play.phase] -= 1
        self._used -= self._blocks(context if grown else context - 1)
        # The next step would compute the KV of the newest token.
        self._contexts.keep(play.request, context - 1, self.profile.blocks - self._used)
        return play

    # The clock.

    def _go_on(self, *, begin: bool = False) -> None:
        """Sets the timer to the time at which a request may begin or end next.

        An idle engine begins only in the timer's callback, so that requests added together start together.
        """
        if self._loop is None or self._failure is not None or self._steps >= self._most_steps:
            return
        now = self._loop.time()
        if begin and not self._running and self._waiting:
            self._begin_step(now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._running and self._waiting:
            self._timer = self._loop.call_at(now, self._tick)
        elif self._running:
            at = self._ends_at + (0 if self._waiting else (self._next_end() - self._steps - 1) * self._plain_step())
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._settle()
        self._go_on(begin=True)

    def _settle(self) -> None:
        """Plays all steps that have ended by now."""
        if self._loop is None or self._failure is not None:
            return
        now = self._loop.time()
        while self._running and self._ends_at <= now and self._steps < self._most_steps:
            self._steps += 1
            self._tokens += len(self._running)
            while self._running and self._next_end() == self._steps:
                play = self._stop(self._running[heapq.heappop(self._ends)[1]], grown=False)
                self._end(play, play.reason)
            self._begin_step(self._ends_at)
            self._skip(now)

    def _begin_step(self, at: float) -> None:
        """Begins a step at time `at`, as vLLM's scheduler does: first blocks for running requests, then new requests
        unless a running one was preempted."""
        seconds = 0.0
        if not self._grow():
            while self._waiting and self._fits(self._waiting[0]):
                seconds += self._admit(self._waiting.popleft())
        if not self._running and self._waiting:
            self._fail(f"the KV cache of {self.profile.blocks} blocks cannot hold request {self._waiting[0].key}")
        self._ends_at = at + self._plain_step() + seconds

    def _skip(self, now: float) -> None:
        """Plays all steps until `now` as one, if no request ends or begins in them and the blocks suffice."""
        if not self._running or self._waiting or self._ends_at > now:
            return
        step = self._plain_step()
        most = min(self._next_end(), self._most_steps) - self._steps
        count = int(min((now - self._ends_at) / step + 1, most)) - 1
        cycles, rest = divmod(count, len(self._crossings))
        need = cycles * len(self._running)
        need += sum(self._crossings[(self._steps + 1 + step) % len(self._crossings)] for step in range(rest))
        if count <= 0 or self._used + need > self.profile.blocks:
            return
        self._used += need
        self._steps += count
        self._tokens += count * len(self._running)
        self._ends_at += count * step

    def _next_end(self) -> int:
        """Returns the step at which a running request ends next; drops the heap's outdated entries."""
        while True:
            step, key = self._ends[0]
            play = self._running.get(key)
            if play is not None and play.since + play.target - play.before == step:
                return step
            heapq.heappop(self._ends)

    def _plain_step(self) -> float:
        return self._scripted.step_seconds + self._scripted.step_seconds_per_request * len(self._running)

    # Slots and blocks.

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._scripted.block_tokens)

    def _grow(self) -> bool:
        """Takes blocks for the next token of every running request; preempts the newest requests while the blocks do
        not suffice. Returns whether it preempted any."""
        preempted = False
        phase = self._steps % len(self._crossings)
        while self._used + self._crossings[phase] > self.profile.blocks:
            play = self._stop(next(reversed(self._running.values())), grown=False)
            self._waiting.appendleft(play)
            self._preemptions += 1
            preempted = True
        self._used += self._crossings[phase]
        return preempted

    def _fits(self, play: _Play) -> bool:
        room = self.profile.blocks - self._used
        return len(self._running) < self.profile.slots and self._blocks(play.context(play.before)) <= room

    def _admit(self, play: _Play) -> float:
        """Gives a request a slot and blocks; returns the seconds until its context is computed or fetched."""
        context, size = play.context(play.before), self._scripted.block_tokens
        self._used += self._blocks(context)
        play.since = self._steps
        play.phase = (self._steps - context + 1) % size
        self._crossings[play.phase] += 1
        self._running[play.key] = play
        heapq.heappush(self._ends, (self._steps + play.target - play.before, play.key))
        self._contexts.shrink_to(self.profile.blocks - self._used)
        return self._contexts.take_up(play.request, context)

    def _fail(self, reason: str) -> None:
        self._failure = EngineError(f"the engine failed: {reason}")
        if self._loop is not None:
            self._loop.call_soon(self._wake)


def _nobody() -> None:
    """Replaces the caller's `wake` before `start`."""
