"""The interface between the worker and an engine: `vllm`, or `scripted`, which generates given lengths without a
model."""

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
    """The capacity of an engine. `blocks`: KV blocks; `layout`: blocks of a request; `slots`: concurrent responses.

    `context_tokens`: limit of prompt and response together, by the model; `request_tokens`: the same limit, by the
    model and the blocks. `device`: name of the device, for display; `dtype`: number format of the weights, by torch's
    name; `vocabulary`: rows of the model's embedding; `routing`: shape of its rows of routed experts, None if it
    captures none; `contexts_move`: whether another engine can load a response's KV from a pool.
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
        """The profile's part of a worker's metrics."""
        room = self.layout.tokens(self.blocks, UNLIMITED)
        return {"device": self.device, "dtype": self.dtype, "kv_tokens": room, **self.limits.metrics}


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A response to generate. The engine knows no quanta: it generates to the end unless `abort` is called.

    `key` is unique among all requests of the engine. `tokens`: the response so far. `seed`: the caller derives it from
    the request's seed and the position, so that no draw repeats after a move. `true_length`: the forced length, 0 for
    none. `adapter`: version of its adapter, "" for none. `kv_place`: folder of its blocks in the KV pool, "" for none.
    `rows_from`: the first position of which the caller needs the routed experts, None for none; with 0 the engine
    computes the whole context, without its cache.
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
    `routes`: routed experts of the positions from `rows_from` to the one before the last token, which the engine has
    not processed yet; rows of later positions are ignored.
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

    `salt`: part of every key of cached KV; no other weights have the same one.
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
    """Tokens of a group's response at another worker, for drafts: int32 bytes, from token `position` on."""

    group: str
    response_index: int
    position: int
    tokens: bytes


@dataclass(frozen=True, slots=True)
class DraftNews:
    """Changes in an engine's groups, for its drafts; tokens are bytes as in openseer_core.tokens.

    `tokens`: new tokens of responses at other workers. `earlier`: (group, responses of earlier batches to the same
    prompt, newest first). `importance`: weight of a request's speed by its key, 1 without an entry; replaces all
    earlier entries. `released`: groups that need no drafts any more.
    """

    tokens: list[DraftTokens] = field(default_factory=list[DraftTokens])
    earlier: list[tuple[str, list[bytes]]] = field(default_factory=list[tuple[str, list[bytes]]])
    importance: dict[str, float] = field(default_factory=dict[str, float])
    released: list[str] = field(default_factory=list[str])


class Engine(Protocol):
    """One engine. All methods are called from the worker's event loop; the methods that are not async return at once.

    The async methods raise LoadError when the operation fails. `load_weights`, `sleep`, `wake` and `check_weights`
    require that no request runs.
    """

    profile: EngineProfile

    @property
    def drafts(self) -> bool:
        """Whether it drafts; if not, the worker does not call `feed`."""
        ...

    def start(self, wake: Callable[[], None]) -> None:
        """Starts the engine; it calls `wake` (from any thread) whenever a request ends or the engine fails."""
        ...

    def add(self, request: EngineRequest) -> None:
        """Adds a request. It fits, because the caller counts blocks and slots. If its adapter is not loaded, it ends as
        ABORTED."""
        ...

    def abort(self, key: str) -> None:
        """Ends a request early; its last tokens are still collected, with finish ABORTED. Ignores unknown keys."""
        ...

    def collect(self) -> list[EngineOutput]:
        """All outputs since the last call, at most one per request."""
        ...

    def metrics(self) -> dict[str, float | int | str]:
        """Counters for heartbeats: steps, tokens, preemptions, running, kv_used (0 to 1); `drafts`: "on", "off: why".

        `sick`, if present: why the GPU must not be used any longer.
        """
        ...

    def check(self) -> None:
        """Raises EngineError with the cause when the engine has failed."""
        ...

    async def feed(self, news: DraftNews) -> list[int]:
        """Applies `news` between two steps. Returns, for each entry of `news.tokens`, the number of tokens of that
        response that the engine now has."""
        ...

    async def load_weights(self, weights: NewWeights) -> None:
        """Replaces the weights and drops all adapters; KV cached with other weights never matches again.

        Raises LoadError also if the scores of the new weights are not finite. After LoadError the engine may have no
        complete weights: it accepts requests only after another load.
        """
        ...

    async def load_adapter(self, adapter: NewAdapter) -> None:
        """Adds an adapter; requests may run. Raises LoadError also if its scores are not finite."""
        ...

    async def drop_adapter(self, version: str) -> None:
        """Removes an adapter that no request uses; ignores an unknown version."""
        ...

    async def score(self, tokens: list[int], adapter: str = "") -> list[float]:
        """Log-probabilities of `tokens[1:]`, each given all tokens before it, at temperature 1, by the model or an
        adapter; requests may run."""
        ...

    async def sleep(self, *, keep_weights: bool) -> bool:
        """Frees the GPU's memory, also after `wake(weights_only=True)`; only `wake` and `close` may follow.

        Returns whether memory was freed: False without a GPU. Unless `keep_weights`, the engine accepts requests only
        after another load.
        """
        ...

    async def wake(self, *, weights_only: bool) -> None:
        """Allocates the memory again, with the earlier weights.

        With `weights_only` it allocates the memory of the weights alone. Until another `wake` only `load_weights` and
        `sleep` may follow; such a load does not score the weights.
        """
        ...

    async def check_weights(self) -> None:
        """Scores a few tokens, as a load does. Raises LoadError if a score is not finite."""
        ...

    async def close(self) -> None:
        """Stops the engine and frees its memory; running requests are dropped."""
        ...
