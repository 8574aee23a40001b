"""What the worker asks of an engine. `vllm_engine` is the real one, `scripted_engine` plays given lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from openseer_core.job import Sampling
from openseer_core.life import FinishReason


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine can hold: `blocks` KV blocks of `block_tokens` tokens, `slots` responses at once.

    `context_tokens`: prompt and response together; `device`: what it runs on, for people.
    """

    blocks: int
    block_tokens: int
    slots: int
    context_tokens: int
    device: str
    engine: str


@dataclass(frozen=True, slots=True)
class Work:
    """A response to go on with, to its very end: the engine is told to stop through `abort`, not by a length.

    `key` is unique among all work the engine was ever given. `tokens`: the response so far. `seed` is derived by the
    caller from the request's seed and the position, so it never replays noise. `true_length`: 0 or the forced length.
    """

    key: str
    group: str
    index: int
    prompt: list[int]
    tokens: list[int]
    max_tokens: int
    sampling: Sampling
    seed: int | None = None
    true_length: int = 0


@dataclass(slots=True)
class Progress:
    """What an engine produced for one work since it was last asked: bytes as in openseer_core.tokens.

    `finish` is set exactly once, on the last progress of a work; after an abort it is ABORTED.
    """

    key: str
    tokens: bytes
    logprobs: bytes
    finish: FinishReason | None = None
    stop_reason: str = ""


class Engine(Protocol):
    """One engine. All methods are called from the worker's event loop and return at once."""

    profile: EngineProfile

    def start(self, wake: Callable[[], None]) -> None:
        """Begins to work; `wake` is called (from any thread) whenever a work ends or the engine fails."""
        ...

    def add(self, work: Work) -> None:
        """Takes a work. It fits: the worker counts blocks and slots."""
        ...

    def abort(self, key: str) -> None:
        """Ends a work early; its last tokens still come, with finish ABORTED. Unknown keys are ignored."""
        ...

    def collect(self) -> list[Progress]:
        """Everything since the last call, at most one entry per work."""
        ...

    def figures(self) -> dict[str, float | int | str]:
        """Counters for heartbeats: steps, tokens, preemptions, running, kv_used (0 to 1).

        `sick`, where it is among them, says why the engine should not be worked with any longer.
        """
        ...

    def check(self) -> None:
        """Raises EngineError with the cause when the engine has failed."""
        ...

    async def close(self) -> None:
        """Stops the engine and frees what it holds; what runs is dropped."""
        ...
