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
    """The capacity of an engine: `blocks` KV blocks, which a request takes as `layout` says, `slots` responses at once.

    `context_tokens`: limit of prompt and response together, by the model; `device`: its name, for people; `dtype`: the
    number format of its weights, by torch's name; `vocabulary`: rows of the model's embedding; `request_tokens`: limit
    of prompt and response together, by the model and the blocks; `routing`: shape of its rows of routed experts, None
    where it captures none; `contexts_move`: another engine can load a response's KV from a pool.
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
        """The limits of one request."""
        return ModelLimits(self.context_tokens, self.vocabulary, self.request_tokens)

    @property
    def metrics(self) -> dict[str, int | str]:
        """Its part of a worker's metrics."""
        room = self.layout.tokens(self.blocks, UNLIMITED)
        return {"device": self.device, "dtype": self.dtype, "kv_tokens": room, **self.limits.metrics}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A response to generate to its end; it has no quantum: `abort` ends it early.

    `key` is unique among all requests of the engine. `tokens`: the response so far. `seed` is derived by the caller
    from the request's seed and the position, so no draw repeats after a move. `true_length`: 0 or the forced length.
    `adapter`: version of its adapter, "" for none. `kv_place`: folder of its blocks in the KV pool, "" for none.
    `rows_from`: the first position whose routed experts the caller needs, None for none; with 0 the engine computes the
    whole context, without its cache.
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
    """The output of one request, of a step or since the last `collect`: bytes as in openseer_core.tokens and
    token_scores.

    `finish` is set exactly once, on the last output of a request; after an abort it is ABORTED. `unscored`: index in
    `tokens` of the first token sampled from logits with NaN, for a request without log-probabilities; None: none found.
    `routes`: routed experts of all positions before its last token, from `rows_from` on; later ones are ignored.
    """

    key: str
    tokens: bytes = b""
    logprobs: bytes = b""
    finish: FinishReason | None = None
    stop_reason: str = ""
    unscored: int | None = None
    routes: tuple[Stretch, ...] = ()

    def add(self, later: "EngineOutput") -> None:
        """Appends a later output of the same request."""
        if self.unscored is None and later.unscored is not None:
            self.unscored = count_items(self.tokens) + later.unscored
        self.tokens += later.tokens
        self.logprobs += later.logprobs
        self.routes += later.routes
        if later.finish is not None:
            self.finish, self.stop_reason = later.finish, later.stop_reason


@dataclass(frozen=True, slots=True)
class NewWeights:
    """Weights to load: from a folder of safetensors, or the job's model (None).

    `salt`: part of every key of cached KV, different for all other weights.
    """

    salt: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class NewAdapter:
    """A LoRA adapter to load, from a checked folder. `salt`: part of every key of KV cached with it."""

    version: str
    salt: str
    folder: Path


class DraftTokens(NamedTuple):
    """Tokens to draft from, of a group's response at another worker, from token `position` on: int32 bytes."""

    group: str
    response_index: int
    position: int
    tokens: bytes


@dataclass(frozen=True, slots=True)
class DraftNews:
    """Changes in an engine's groups, for its drafts; tokens are bytes as in openseer_core.tokens.

    `tokens`: of responses at other workers. `earlier`: (group, responses of earlier batches to the same prompt, newest
    first). `importance`: weight of a request's speed by its key, 1 without an entry; replaces all earlier entries.
    `released`: groups that the worker no longer follows.
    """

    tokens: list[DraftTokens] = field(default_factory=list[DraftTokens])
    earlier: list[tuple[str, list[bytes]]] = field(default_factory=list[tuple[str, list[bytes]]])
    importance: dict[str, float] = field(default_factory=dict[str, float])
    released: list[str] = field(default_factory=list[str])


class Engine(Protocol):
    """One engine. All methods are called from the worker's event loop; those that are not async return at once.

    The async ones raise LoadError when the operation fails. All but `feed`, `score` and those of adapters require an
    engine without requests.
    """

    profile: EngineProfile

    @property
    def drafts(self) -> bool:
        """Whether it drafts; if not, the worker feeds it no news."""
        ...

    def start(self, wake: Callable[[], None]) -> None:
        """Starts the engine; it calls `wake` (from any thread) whenever a request ends or the engine fails."""
        ...

    def add(self, request: EngineRequest) -> None:
        """Adds a request. The caller counts blocks and slots, so it fits. One whose adapter is not loaded ends as
        ABORTED."""
        ...

    def abort(self, key: str) -> None:
        """Ends a request early; its last tokens still come, with finish ABORTED. Unknown keys are ignored."""
        ...

    def collect(self) -> list[EngineOutput]:
        """All outputs since the last call, at most one per request."""
        ...

    def metrics(self) -> dict[str, float | int | str]:
        """Counters for heartbeats: steps, tokens, preemptions, running, kv_used (0 to 1); `drafts`: "on", "off: why".

        `sick`, where present, is the reason to stop using this engine.
        """
        ...

    def check(self) -> None:
        """Raises EngineError with the cause when the engine has failed."""
        ...

    async def feed(self, news: DraftNews) -> list[int]:
        """Takes news between two steps; returns, for each entry of `tokens`, the tokens that it has of the response."""
        ...

    async def load_weights(self, weights: NewWeights) -> None:
        """Replaces the weights and drops all adapters; KV cached with other weights never matches again.

        Raises LoadError also for weights whose scores are not finite. After LoadError the engine may have no complete
        weights: it takes requests only after another load.
        """
        ...

    async def load_adapter(self, adapter: NewAdapter) -> None:
        """Adds an adapter while requests run. Raises LoadError also for one whose scores are not finite."""
        ...

    async def drop_adapter(self, version: str) -> None:
        """Removes an adapter that no request uses; unknown ones are ignored."""
        ...

    async def score(self, tokens: list[int], adapter: str = "") -> list[float]:
        """Log-probabilities of `tokens[1:]`, each given those before it, at temperature 1, with the model or an
        adapter; requests may run."""
        ...

    async def sleep(self, *, keep_weights: bool) -> bool:
        """Frees the GPU's memory, also again after `wake(weights_only=True)`; only `wake` and `close` may follow.

        Returns whether memory was freed: False without a GPU. Unless `keep_weights`, it takes requests only after
        another load.
        """
        ...

    async def wake(self, *, weights_only: bool) -> None:
        """Allocates the memory again, with the earlier weights. With `weights_only` that of the weights alone: then
        only `load_weights` may follow, which does not score them, until another `wake`."""
        ...

    async def check_weights(self) -> None:
        """Scores a few tokens, as a load does. Raises LoadError if a score is not finite."""
        ...

    async def close(self) -> None:
        """Stops the engine and frees its memory; running requests are dropped."""
        ...
