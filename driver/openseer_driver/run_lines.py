"""Types of the lines and documents of a run folder: results, samples and run.json."""

from typing import Any, Literal

import msgspec

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.states import Status
from openseer_core.worker.context_metrics import ContextCounts
from openseer_core.worker.time_metrics import WorkerSeconds

RunState = Literal["running", "stopped", "complete", "failed"]
ResultKey = tuple[int, str, int]
"""Batch, group and index: the unique key of a result."""


class ChunkLine(msgspec.Struct, frozen=True):
    """One lease on a request. `worker`: "name#boot"; `start`, `end`: the response's tokens [start, end) that the lease
    generated; `event`: the event that ended it. Times are seconds of the store's clock."""

    worker: str
    fence: int
    start: int
    end: int
    claimed_at: float
    ended_at: float
    event: str

    @property
    def worker_name(self) -> str:
        """The worker without its boot."""
        return self.worker.split("#", 1)[0]


class Timings(msgspec.Struct, frozen=True):
    """Times of a request, in seconds of the store's clock: begin of its submission, first claim (null: never claimed),
    and end. `seconds`: from the first claim to the end, 0 if never claimed."""

    enqueued_at: float
    started_at: float | None
    finished_at: float
    seconds: float


class RoutedLine(msgspec.Struct, frozen=True):
    """The routed experts of a response. `file`: in the run's folder, a numpy array [positions, layers, experts].

    Its first row is that of position `start` of prompt and response; the last token has no row. `gaps`: number of
    missing rows, in the spans [start, end) of `missing`; they are zeros in the array.
    """

    file: str
    start: int
    shape: list[int]
    dtype: str
    gaps: int
    missing: list[tuple[int, int]]


class ResultLine(msgspec.Struct, frozen=True):
    """One line of results.jsonl."""

    batch: int
    group: str
    index: int
    weights_version: str
    status: Status
    finish_reason: str
    stop_reason: str | None
    prompt_token_ids: list[int]
    prompt_template_hash: str | None
    token_ids: list[int]
    logprobs: list[float | None] | None
    logprobs_of: str | None
    text: str | None
    metadata: Any
    chunks: list[ChunkLine]
    workers: list[str]
    timings: Timings
    cursor: int
    top_logprobs: list[list[tuple[int, float]]] | None = None
    routed_experts: RoutedLine | None = None

    @property
    def key(self) -> ResultKey:
        """The unique key of the result."""
        return self.batch, self.group, self.index

    @property
    def request(self) -> RequestId:
        """The id of the result's request."""
        return RequestId(GroupId(self.batch, self.group), self.index)


class KeyLine(msgspec.Struct, frozen=True):
    """The key of a result line."""

    batch: int
    group: str
    index: int


class RoutedFact(msgspec.Struct, frozen=True):
    """The fields of a RoutedLine from which its rows are counted."""

    shape: list[int]
    gaps: int

    @property
    def expected(self) -> int:
        """Number of rows that the array should have."""
        return self.shape[0]


_NONE = msgspec.Raw(b"[]")


class FactLine(msgspec.Struct, frozen=True):
    """A result line without its text, log-probabilities and metadata; its token ids stay undecoded."""

    batch: int
    group: str
    index: int
    status: Status
    finish_reason: str
    token_ids: msgspec.Raw
    chunks: list[ChunkLine]
    timings: Timings
    stop_reason: str | None = None
    prompt_token_ids: msgspec.Raw = _NONE
    routed_experts: RoutedFact | None = None

    @property
    def length(self) -> int:
        """Number of tokens of the response."""
        return _entries(self.token_ids)

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt."""
        return _entries(self.prompt_token_ids)


def _entries(raw: msgspec.Raw) -> int:
    """Number of entries of a JSON list of numbers."""
    text = bytes(raw).strip()
    return text.count(b",") + 1 if text.strip(b"[] \t") else 0


class WorkerSample(msgspec.Struct, frozen=True):
    """One worker in one sample. `preemptions`, `tokens` and the counters in `drafts`, `contexts` and `seconds` restart
    at zero at each boot of the worker.

    `drafting`: "on", or "off" with the reason; "": not reported yet. `seconds`: None if the worker does not count them.
    `boot`: "" in samples of earlier releases; `silent`: seconds since its last heartbeat; `kv_tokens`: capacity of its
    KV cache, 0: not reported.
    """

    state: str = ""
    inflight: int = 0
    slots: int = 0
    kv_used: float = 0.0
    kv_reserved: float = 0.0
    preemptions: int = 0
    tokens: int = 0
    running: int = 0
    gpu: Any = None
    drafting: str = ""
    drafts: dict[str, float] = {}
    contexts: ContextCounts = ContextCounts()
    seconds: WorkerSeconds | None = None
    boot: str = ""
    silent: float = 0.0
    kv_tokens: int = 0


class SampleLine(msgspec.Struct, frozen=True):
    """One line of samples.jsonl: the fleet at one moment.

    `at`: seconds of the job's clock, which advances by at most 1.5 s while the store does not answer; `taken_at`:
    seconds of the session's clock (SessionClock), 0 in samples of earlier releases. `waiting`, `inflight`, `closed`:
    numbers of requests; `requests`: all. `tokens_left`: expected tokens that the unfinished responses still need, None
    while no length is known.
    """

    at: float
    waiting: int = 0
    inflight: int = 0
    closed: int = 0
    requests: int = 0
    tokens: int = 0
    workers: dict[str, WorkerSample] = {}
    taken_at: float = 0.0
    tokens_left: float | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the start-up is over: a request runs, or all requests are closed."""
        return self.inflight > 0 or 0 < self.requests <= self.closed

    @property
    def none_waits(self) -> bool:
        """Whether no request waits and some still run."""
        return self.requests > 0 and self.waiting == 0 and self.inflight > 0 and self.closed < self.requests


class Session(msgspec.Struct, frozen=True):
    """One session of the run. `ended_at`: None while the session runs, and if it was killed; `workers`: the manifest's
    number of workers."""

    started_at: float
    ended_at: float | None = None
    workers: Any = None


class RunRecord(msgspec.Struct, frozen=True):
    """The content of run.json: the manifest of the run, its sessions, and its state."""

    name: str
    manifest_hash: str
    manifest: dict[str, Any]
    openseer: str
    state: RunState
    reason: str = ""
    sessions: list[Session] = []

    def setting(self, *path: str) -> Any:
        """A value of the manifest by its path below `spec`; None if it is not set."""
        here: Any = self.manifest.get("spec")
        for name in path:
            here = here.get(name) if isinstance(here, dict) else None  # pyright: ignore
        return here  # pyright: ignore[reportUnknownVariableType]
