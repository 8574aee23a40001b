"""The interface between the worker and an engine. `vllm` is the real one, `scripted` plays given lengths."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from openseer_core.admission import ModelLimits
from openseer_core.manifest.job import Sampling
from openseer_core.queue.kv_blocks import UNLIMITED, KvLayout
from openseer_core.queue.states import FinishReason
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import count_items


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """What an engine can hold: `blocks` KV blocks, which a request takes as `layout` says, `slots` responses at once.

    `context_tokens`: prompt and response together, by the model; `device`: what it runs on, for people; `dtype`: the
    number format of its weights, by torch's name; `vocabulary`: rows of the model's embedding; `request_tokens`: prompt
    and response together, what the model takes and the blocks hold; `routing`: of its rows of routed experts, None
    where it captures none; `contexts_move`: a response takes its context along to another engine, by a KV pool.
    """

    blocks: int
    layout: KvLayout
    slots: int
    context_tokens: int
    device: str
    engine: str
    dtype: str = "float32"
    vocabulary: int | None = None
    routing: RowShape | None = None
    contexts_move: bool = False
    request_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "request_tokens", self.layout.tokens(self.blocks, self.context_tokens))

    @property
    def limits(self) -> ModelLimits:
        """What one request may have."""
        return ModelLimits(self.context_tokens, self.vocabulary, self.request_tokens)

    @property
    def metrics(self) -> dict[str, int | str]:
        """What of it a worker's metrics have."""
        room = self.layout.tokens(self.blocks, UNLIMITED)
        return {"device": self.device, "dtype": self.dtype, "kv_tokens": room, **self.limits.metrics}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A response to go on with, to its very end: `abort` stops the engine, not a length.

    `key` is unique among all requests of the engine. `tokens`: the response so far. `seed` is derived by the caller
    from the request's seed and the position, so no draw repeats after a move. `true_length`: 0 or the forced length.
    `adapter`: the version of the adapter that it runs with, "" for none. `kv_place`: the folder in the KV pool in which
    its blocks are kept, "" where none are. `rows_from`: the first position whose routed experts are wanted, None for
    none; 0 has the whole context computed, whatever is cached of it.
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
    adapter: str = ""
    kv_place: str = ""
    rows_from: int | None = None


@dataclass(slots=True)
class EngineOutput:
    """What an engine produced for one request, in a step or since the last `collect`: bytes as in openseer_core.tokens
    and token_scores.

    `finish` is set exactly once, on the last output of a request; after an abort it is ABORTED. `unscored`: the place
    in `tokens` of the first that was drawn from logits with NaN, where no log-probabilities are wanted that would show
    it; None: no such one is known. `routes`: routed experts of all positions before its last token, from `rows_from`
    on; some may follow that do not count.
    """

    key: str
    tokens: bytes = b""
    logprobs: bytes = b""
    finish: FinishReason | None = None
    stop_reason: str = ""
    unscored: int | None = None
    routes: tuple[Stretch, ...] = ()

    def add(self, later: "EngineOutput") -> None:
        """Appends what the engine produced for the same request after this."""
        if self.unscored is None and later.unscored is not None:
            self.unscored = count_items(self.tokens) + later.unscored
        self.tokens += later.tokens
        self.logprobs += later.logprobs
        self.routes += later.routes
        if later.finish is not None:
            self.finish, self.stop_reason = later.finish, later.stop_reason


@dataclass(frozen=True, slots=True)
class NewWeights:
    """Weights to load: from a folder of safetensors, or the job's model.

    `salt` tells their cached KV apart from that of all other weights.
    """

    salt: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """A LoRA adapter to load, from a folder that was checked. `salt` tells the KV cached with it apart."""

    version: str
    salt: str
    folder: Path


class DraftTokens(NamedTuple):
    """Tokens of a group's response that is generated elsewhere, from token `position` on: int32 bytes to draft from."""

    group: str
    response_index: int
    position: int
    tokens: bytes


@dataclass(frozen=True, slots=True)
class DraftNews:
    """What changed for an engine that drafts, in the groups it works for; tokens are bytes as in openseer_core.tokens.

    `tokens`: of responses generated elsewhere. `earlier`: (group, responses of earlier batches to the same prompt, the
    newest first). `importance`: by the key of a request, how much its speed counts, 1 where it has no entry; it
    replaces the importance of all news before. `released`: groups that the worker runs nothing of any more.
    """

    tokens: list[DraftTokens] = field(default_factory=list[DraftTokens])
    earlier: list[tuple[str, list[bytes]]] = field(default_factory=list[tuple[str, list[bytes]]])
    importance: dict[str, float] = field(default_factory=dict[str, float])
    released: list[str] = field(default_factory=list[str])


class Engine(Protocol):
    """One engine. All methods are called from the worker's event loop, and those that are not async return at once.

    The async ones raise LoadError when that one thing went wrong. All but `feed`, and those of adapters, are for an
    engine that has no requests.
    """

    profile: EngineProfile

    @property
    def drafts(self) -> bool:
        """Whether it drafts; otherwise it has no use for news."""
        ...

    def start(self, wake: Callable[[], None]) -> None:
        """Begins to work; `wake` is called (from any thread) whenever a request ends or the engine fails."""
        ...

    def add(self, request: EngineRequest) -> None:
        """Takes a request. It fits: the worker counts blocks and slots. One whose adapter is not loaded comes back
        as ABORTED."""
        ...

    def abort(self, key: str) -> None:
        """Ends a request early; its last tokens still come, with finish ABORTED. Unknown keys are ignored."""
        ...

    def collect(self) -> list[EngineOutput]:
        """Everything since the last call, at most one entry per request."""
        ...

    def metrics(self) -> dict[str, float | int | str]:
        """Counters for heartbeats: steps, tokens, preemptions, running, kv_used (0 to 1); `drafts`: "on", "off: why".

        `sick`, where it is among them, says why the engine should not be worked with any longer.
        """
        ...

    def check(self) -> None:
        """Raises EngineError with the cause when the engine has failed."""
        ...

    async def feed(self, news: DraftNews) -> list[int]:
        """Takes news between two steps; returns how many tokens it then knows of the response of each `tokens`."""
        ...

    async def load_weights(self, weights: NewWeights) -> None:
        """Replaces the weights; what was cached with others never matches again, and all adapters go. Weights whose
        scores are not finite are refused.

        After LoadError the engine may have none that are whole: it takes requests only after another load.
        """
        ...

    async def load_adapter(self, adapter: NewAdapter) -> None:
        """Adds an adapter, beside the requests that run; one whose scores are not finite is refused."""
        ...

    async def drop_adapter(self, version: str) -> None:
        """Removes an adapter, which no request uses any more; unknown ones are ignored."""
        ...

    async def score(self, tokens: list[int], adapter: str = "") -> list[float]:
        """Log-probabilities of `tokens[1:]`, each given those before it, by the model itself (temperature 1), or with
        an adapter, beside the requests that run."""
        ...

    async def sleep(self, *, keep_weights: bool) -> bool:
        """Frees the GPU's memory, also once more after `wake(weights_only=True)`; nothing but `wake` and `close` may
        follow. Whether it was freed: without a GPU there is none.

        Unless `keep_weights`, it takes requests only after another load.
        """
        ...

    async def wake(self, *, weights_only: bool) -> None:
        """Takes the memory again, with the weights of before, or takes that of the weights alone: then they may be
        replaced by `load_weights`, which does not score them, and nothing else may be done before the rest is awake."""
        ...

    async def check_weights(self) -> None:
        """Scores a few tokens, as a load does. Raises LoadError where a score is not finite."""
        ...

    async def close(self) -> None:
        """Stops the engine and frees what it holds; what runs is dropped."""
        ...
