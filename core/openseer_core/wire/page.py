"""The data of the live page: one complete view per second, small enough to be drawn at once.

Every list has a named limit, and its number of left-out entries. Times are seconds of the store's clock; `now` is the
time at which a view was made. Rates are per second.
"""

from typing import Literal

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.wire.batches import Batch
from openseer_core.wire.results import ChunkInfo
from openseer_core.wire.weights import Transaction

MOST_JOBS = 200
MOST_FINDINGS = 20
"""Causes of lost time."""
MOST_BARS = 2000
"""Limit of leases over all lanes of a job; the latest are kept."""
MOST_BARS_ENDED = 20_000
"""The same limit for a run that has ended, which is sent once."""
WINDOW_SECONDS = 120.0
"""Time span of the lanes, in seconds."""
MOST_POINTS = 900
"""Limit of points of a series: one per second, a quarter of an hour."""
MOST_GROUPS = 2000
"""Limit of groups of a batch; unfinished ones first."""
MOST_PAIRS = 2000
"""Limit of finished responses of a batch with estimate and length; the latest are kept."""
MOST_IN_TAIL = 50
"""Limit of running responses of a batch in the tail: those with the latest expected end."""
MOST_SIBLINGS = 64
"""Limit of responses of a group."""
MOST_TOKENS = 32_768
"""Limit of tokens of all responses of a group in one view; the next view continues after them."""

JobWord = Literal["running", "idle", "waiting", "lent", "finished", "failed", "unknown"]
RequestWord = Literal["waiting", "running", "ok", "aborted", "failed", "cancelled", "carried"]


class JobCard(JsonModel):
    """An overview of a job. `reason`: the cause of its state, such as a wait or an error. A job whose store does not
    answer has state `unknown`, its place and the reason, and nothing else.

    `progress`: share of the requests of all batches that have ended, `eta_seconds`: until the last of them ends; None
    while unknown. `acceptance_length`: mean tokens per request and step, None without drafts.
    """

    namespace: str
    name: str
    mode: Literal["batch", "serve"]
    state: JobWord
    reason: str
    workers: int = 0
    workers_ready: int = 0
    workers_wanted: int = 0
    running: int = 0
    waiting: int = 0
    batches: int = 0
    progress: float | None = None
    eta_seconds: float | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    acceptance_length: float | None = None
    idle_gpu_seconds: float = 0.0
    busy_gpu_seconds: float = 0.0


class JobCards(JsonModel):
    """All jobs that the viewer may read, by namespace and name; `left_out`: number beyond the limit."""

    jobs: list[JobCard]
    left_out: int = 0


class WorkerLane(JsonModel):
    """A worker. `silent`: its heartbeat is overdue. `pace_ratio`: tokens per second of its responses relative to the
    others' at equal concurrency, None where unknown. In words: `slow`, that it generates more slowly than the others,
    else ""; `waits`, the reason why it runs fewer requests than it could."""

    worker: str
    state: str
    version: str = ""
    device: str = ""
    node: str = ""
    silent: bool = False
    seen_seconds_ago: float = 0.0
    running: int = 0
    slots: int = 0
    kv_used: float = 0.0
    tokens: int = 0
    tokens_per_second: float | None = None
    acceptance_length: float | None = None
    preemptions: int = 0
    error: str = ""
    pace_ratio: float | None = None
    slow: str = ""
    waits: str = ""


class Bars(JsonModel):
    """Leases as columns: entry n of each list belongs to lease n. `lane`: index into the lanes; `row`: a row of that
    lane in which no two leases overlap; `end`: None while it runs; `event`: how it ended, "" while it runs; `tokens`:
    of the response at its end, or at its start while it runs. `request`: "batch/group/index"."""

    lane: list[int] = Field(default_factory=list[int])
    row: list[int] = Field(default_factory=list[int])
    start: list[float] = Field(default_factory=list[float])
    end: list[float | None] = Field(default_factory=list[float | None])
    tokens: list[int] = Field(default_factory=list[int])
    event: list[str] = Field(default_factory=list[str])
    request: list[str] = Field(default_factory=list[str])
    left_out: int = 0


class Series(JsonModel):
    """Figures of the whole fleet over time, as columns; `kv_used`: share of the workers' KV blocks, 0 to 1. None where
    a figure is not known, as rates of the first seconds after somebody begins to look."""

    at: list[float] = Field(default_factory=list[float])
    running: list[int] = Field(default_factory=list[int])
    waiting: list[int] = Field(default_factory=list[int])
    tokens_per_second: list[float | None] = Field(default_factory=list[float | None])
    kv_used: list[float] = Field(default_factory=list[float])
    acceptance_length: list[float | None] = Field(default_factory=list[float | None])


class PartOfTime(JsonModel):
    """A part of all workers' time; None where it is not known, so that another part holds it."""

    name: str
    label: str
    worker_seconds: float | None
    share: float | None


class StandsOut(JsonModel):
    """One cause of lost time: what it is in words, with the figure that the advice rests on, and what is at stake."""

    cause: str
    subject: str
    figure: float
    says: str
    advice: str
    worker_seconds: float
    share: float


class Possible(JsonModel):
    """Makespans in seconds that were possible with the same lengths, simulated: with what was known, under `policy`;
    with an oracle; with engines full to the end; `itself`: of the run's own policy. `unknown`: what is left out."""

    known: float
    policy: str
    oracle: float
    bound: float
    itself: float
    unknown: list[str] = Field(default_factory=list[str])


class Explained(JsonModel):
    """Where the workers' time of a job went, and what to do. `live`: a later view may say more.

    `seconds`: the makespan with the start of the run before it; of a job that goes on, so far, from the first request
    queued of those that were there when somebody began to look. `worker_seconds`: the same, of all `workers`; the known
    parts add up to it. `findings`: the largest first, MOST_FINDINGS; `tail`: which response is expected to end last, in
    words, "" before the tail. `best`: None where it is not known, for the reason `no_best`; `notes`: what a reader has
    to know.
    """

    live: bool
    seconds: float
    makespan_seconds: float
    workers: int
    worker_seconds: float
    parts: list[PartOfTime]
    findings: list[StandsOut]
    tail: str = ""
    best: Possible | None = None
    no_best: str = ""
    notes: list[str] = Field(default_factory=list[str])


class JobView(JsonModel):
    """A job: its fleet, its leases by worker, its batches, its weights. `live`: false for a run that has ended."""

    now: float
    live: bool = True
    card: JobCard
    model: str
    engine: str
    policy: str
    weights_version: str
    transaction: Transaction | None = None
    lanes: list[WorkerLane]
    bars: Bars
    series: Series
    batches: list[Batch]


class JobPulse(JsonModel):
    """The fields of a JobView that change fastest, sent between two views, so that a silent worker shows at once."""

    now: float
    card: JobCard
    lanes: list[WorkerLane]


class GroupColumns(JsonModel):
    """Groups of a batch as columns. `longest`: tokens of the longest finished response; `estimate`: expected length of
    a response, None while unknown."""

    name: list[str] = Field(default_factory=list[str])
    size: list[int] = Field(default_factory=list[int])
    waiting: list[int] = Field(default_factory=list[int])
    running: list[int] = Field(default_factory=list[int])
    ok: list[int] = Field(default_factory=list[int])
    failed: list[int] = Field(default_factory=list[int])
    longest: list[int] = Field(default_factory=list[int])
    estimate: list[int | None] = Field(default_factory=list[int | None])
    left_out: int = 0


class Histogram(JsonModel):
    """Lengths of finished responses: `counts[n]` have at least `edges[n]` and fewer than `edges[n + 1]` tokens."""

    edges: list[int] = Field(default_factory=list[int])
    counts: list[int] = Field(default_factory=list[int])


class TailRequest(JsonModel):
    """A running response. `tokens`: so far; `expected`: total length by its siblings, None while unknown;
    `ends_in`: seconds, at the pace so far."""

    request: str
    worker: str
    since: float
    tokens: int
    expected: int | None = None
    ends_in: float | None = None
    chunks: int = 1


class BatchView(JsonModel):
    """A batch. `estimates`, `lengths`: of finished responses, the group's estimate before and the length after."""

    now: float
    live: bool = True
    batch: Batch
    groups: GroupColumns
    histogram: Histogram
    estimates: list[int]
    lengths: list[int]
    tail: list[TailRequest]
    tail_left_out: int = 0
    in_tail_since: float | None = None


class ResponseView(JsonModel):
    """A response, or its next piece: tokens from `start` on. `text`: a piece of text for each token, None without a
    tokenizer; `logprobs`: natural logarithm, None where none are recorded. `length`: tokens so far;
    `expected`: of one that has ended, the length that its siblings had told by then, None where they told none."""

    index: int
    state: RequestWord
    reason: str = ""
    worker: str = ""
    turn: int = 0
    length: int = 0
    expected: int | None = None
    start: int = 0
    tokens: list[int] = Field(default_factory=list[int])
    text: list[str] | None = None
    logprobs: list[float | None] | None = None
    chunks: list[ChunkInfo] = Field(default_factory=list[ChunkInfo])


class GroupPage(JsonModel):
    """A group with its responses side by side. `prompt`: as text, or its token ids as text; `note`: why token ids are
    shown in place of text, "" where they are not."""

    now: float
    live: bool = True
    batch: int
    name: str
    prompt: str
    prompt_tokens: int
    max_tokens: int
    estimate: int | None = None
    note: str = ""
    responses: list[ResponseView]
    left_out: int = 0


class PageProblem(JsonModel):
    """Why a stream of views ends: 401, 403, 404 as in HTTP; 503: the store does not answer, try again."""

    status: int
    detail: str
