"""Shared code of tests of drafting: an engine that drafts, requests on several prompts, and news for it."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openseer_core.manifest.job import Parallelism, Sampling, Speculation
from openseer_worker.engine import DraftNews, EngineRequest
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.engine import VllmEngine
from tests.worker.player import CONTEXT, PROMPT, Player, model

MOST = 6
ROOM = CONTEXT - len(PROMPT)
PROMPTS = [[(7 * position + number) % 90 + 4 for position in range(len(PROMPT))] for number in range(8)]
VOCABULARY = 97


class Names:
    """Unused keys and groups for engine requests."""

    def __init__(self) -> None:
        self._number = 0

    def new(self) -> str:
        self._number += 1
        return f"n{self._number}"


NAMES = Names()


def of(
    prompt: int, sampling: Sampling, length: int = ROOM, group: str = "", index: int = 0, tokens: Sequence[int] = ()
) -> EngineRequest:
    """An engine request on one of the prompts, by default in a new group."""
    name = NAMES.new()
    return EngineRequest(name, group or name, index, PROMPTS[prompt], list(tokens), length, sampling)


def _draft_on_any_machine(engine: Any) -> None:
    """Makes draft lengths independent of step times, which are random on a busy machine and may rule out drafts."""
    inside: Any = engine._core.engine_core.model_executor.driver_worker.worker.model_runner.drafter
    inside.switch_off("")
    inside._drafter._adaptive = False


@contextmanager
def drafting_player(
    folder: Path,
    parallelism: Parallelism | None = None,
    sampling: Sampling | None = None,
    pool: EnginePool | None = None,
    *,
    routes: bool = False,
    **more: Any,
) -> Generator[Player]:
    """An engine that drafts, the only one of its process."""
    speculation = Speculation(max_tokens=MOST, memory_megabytes=64)
    engine_model = model(folder).model_copy(update=more)
    engine = VllmEngine(
        engine_model, parallelism, sampling, cache_salt="drafts", speculation=speculation, pool=pool, routes=routes
    )
    try:
        if engine_model.engine_process != "child":
            _draft_on_any_machine(engine)
        yield Player(engine)
    finally:
        asyncio.run(engine.close())


def feed(player: Player, **news: Any) -> None:
    """Feeds the engine news with these fields of a DraftNews."""
    asyncio.run(player.engine.feed(DraftNews(**news)))


def metrics(player: Player) -> dict[str, float | int | str]:
    """The engine's metrics after all responses so far.

    The engine's thread reads the drafter's counters a moment after the last response, when no request runs; it takes
    news afterwards.
    """
    feed(player)
    return player.engine.metrics()


def metric(player: Player, name: str) -> int:
    """One counter of the metrics."""
    return int(metrics(player)[name])
