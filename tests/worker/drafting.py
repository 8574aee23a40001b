"""What tests of drafting share: an engine that drafts, works on several prompts, and news for it."""

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
    """Keys and groups that no work had before."""

    def __init__(self) -> None:
        self._number = 0

    def new(self) -> str:
        self._number += 1
        return f"n{self._number}"


NAMES = Names()


def of(
    prompt: int, sampling: Sampling, length: int = ROOM, group: str = "", index: int = 0, tokens: Sequence[int] = ()
) -> EngineRequest:
    """A work on one of the prompts, in a group of its own unless it is given one."""
    name = NAMES.new()
    return EngineRequest(name, group or name, index, PROMPTS[prompt], list(tokens), length, sampling)


def _draft_on_any_machine(engine: Any) -> None:
    """Lengths follow what a step costs; on a busy machine that is chance, and drafts may come out as not worth it."""
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
    """An engine that drafts; its process has no other."""
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
    """The engine's metrics once they are of all responses so far.

    The engine's thread reads the drafter's counters when nothing runs any more, a moment after the last response; it
    takes news afterwards.
    """
    feed(player)
    return player.engine.metrics()


def metric(player: Player, name: str) -> int:
    """One counter of them."""
    return int(metrics(player)[name])
