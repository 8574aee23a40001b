"""What the worker asks of an engine. `vllm_engine` is the real one, `scripted_engine` plays given lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from openseer_core.job import Sampling
from openseer_core.life import FinishReason


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine can hold: `blocks` KV blocks of `block_tokens` tokens, `slots` responses at once.

    `context_tokens`: prompt and response together; `device`: what it runs on, for people; `dtype`: the number format
    of its weights, by torch's name.
    """

    blocks: int
    block_tokens: int
    slots: int
    context_tokens: int
    device: str
    engine: str
    dtype: str = "float32"


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


@dataclass(frozen=True, slots=True)
class NewWeights:
    """Weights to load: from a folder of safetensors, through the engine's own `transfer`, or (neither) the job's model.

    `salt` tells their cached KV apart from that of all other weights.
    """

    salt: str
    folder: Path | None = None
    transfer: dict[str, JsonValue] | None = None


class Engine(Protocol):
    """One engine. All methods are called from the worker's event loop, and those that are not async return at once.

    The async ones are for an engine that has no work. They raise LoadError when that one thing went wrong.
    """

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

    async def load_weights(self, weights: NewWeights) -> None:
        """Replaces the weights; what was cached with others never matches again.

        After LoadError the engine may have none that are whole: it must be given work only after another load.
        """
        ...

    async def score(self, tokens: list[int]) -> list[float]:
        """Log-probabilities of `tokens[1:]`, each given those before it, by the model itself (temperature 1)."""
        ...

    async def sleep(self) -> None:
        """Frees the GPU's memory; nothing but `wake` and `close` may follow. Without a GPU nothing happens."""
        ...

    async def wake(self) -> None:
        """Takes the memory again; the weights are those of before."""
        ...

    async def close(self) -> None:
        """Stops the engine and frees what it holds; what runs is dropped."""
        ...
