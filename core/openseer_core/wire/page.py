"""The data of the live page: one complete view per second, small enough to be drawn in one step.

Long lists have a named limit, and most also the number of left-out entries. Times are seconds of the store's clock;
`now` is the time of the view. Rates are per second.
"""

from typing import Literal

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.wire.batches import Batch
from openseer_core.wire.results import ChunkInfo
from openseer_core.wire.weights import Transaction

MOST_JOBS = 200
"""Limit of jobs in the list."""
MOST_FINDINGS = 20
"""Limit of findings of a job."""
MOST_BARS = 2000
"""Limit of leases of a job, over all lanes; the latest are kept."""
MOST_BARS_ENDED = 20_000
"""Limit of leases of a run that has ended; its view is sent only once."""
WINDOW_SECONDS = 120.0
"""Length of the time axis of the lanes, in seconds."""
MOST_POINTS = 900
"""Limit of points of a series: at one point per second, 15 minutes."""
MOST_GROUPS = 2000
"""Limit of groups of a batch; the oldest ended ones are left out first."""
MOST_PAIRS = 2000
"""Limit of pairs (estimate, length) of finished responses of a batch; the latest are kept."""
MOST_IN_TAIL = 50
"""Limit of running responses in the list of the tail; those with the most expected remaining tokens are kept."""
MOST_SIBLINGS = 64
"""Limit of responses in a view of a group."""
MOST_TOKENS = 32_768
"""Limit of tokens, over all responses, in one view of a group; the next view continues after them."""

JobWord = Literal["running", "idle", "waiting", "lent", "finished", "failed", "unknown"]
RequestWord = Literal["waiting", "running", "ok", "aborted", "failed", "cancelled", "carried"]


class JobCard(JsonModel):
    """An overview of a job. `reason`: the cause of its state, such as a wait or an error. If the job's store does not
    answer, the state is `unknown`, and the card contains only the job's name and the reason.

    `progress`: ended requests divided by all requests of its batches. `eta_seconds`: expected time until the last of
    them ends, None while unknown. `acceptance_length`: mean tokens per request and step, None without drafts.
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
    """All jobs that the viewer may read, by namespace and name; `left_out`: number of jobs beyond the limit."""

    jobs: list[JobCard]
    left_out: int = 0


class WorkerLane(JsonModel):
    """A worker. `silent`: whether its heartbeat is overdue. `pace_ratio`: tokens per second of its responses divided by
    those of the others at equal concurrency, None if unknown. `slow`: a clause that states that the worker is
    slower than the others, "" if not. `waits`: the reason why it runs fewer requests than it could, "" if it does not.
    """

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
    """Leases as columns: entry n of each list belongs to lease n. `lane`: index into the lanes. `row`: index of a row
    of that lane; leases of one row do not overlap. `end`: None while the lease runs; `event`: how it ended, "" while it
    runs; `tokens`: of the response at the lease's end, at its start while it runs. `request`: "batch/group/index"."""

    lane: list[int] = Field(default_factory=list[int])
    row: list[int] = Field(default_factory=list[int])
    start: list[float] = Field(default_factory=list[float])
    end: list[float | None] = Field(default_factory=list[float | None])
    tokens: list[int] = Field(default_factory=list[int])
    event: list[str] = Field(default_factory=list[str])
    request: list[str] = Field(default_factory=list[str])
    left_out: int = 0


class Series(JsonModel):
    """Metrics of the whole fleet over time, as columns. `kv_used`: share of the workers' KV blocks in use, 0 to 1. An
    entry is None if it is unknown, for example a rate in the first seconds after the first viewer connects."""

    at: list[float] = Field(default_factory=list[float])
    running: list[int] = Field(default_factory=list[int])
    waiting: list[int] = Field(default_factory=list[int])
    tokens_per_second: list[float | None] = Field(default_factory=list[float | None])
    kv_used: list[float] = Field(default_factory=list[float])
    acceptance_length: list[float | None] = Field(default_factory=list[float | None])


class PartOfTime(JsonModel):
    """A part of all workers' time. `worker_seconds`, `share`: None if unknown; then another part includes this time."""

    name: str
    label: str
    worker_seconds: float | None
    share: float | None


class StandsOut(JsonModel):
    """One cause of lost time. `says`: the finding in words; `figure`: the number that the advice is based on;
    `worker_seconds`, `share`: the lost time, and its share of all workers' time."""

    cause: str
    subject: str
    figure: float
    says: str
    advice: str
    worker_seconds: float
    share: float


class Possible(JsonModel):
    """Simulated makespans, in seconds, with the same lengths and healthy engines. `known`: under `policy`, the best
    policy that knows no lengths beforehand; `oracle`: under a policy that knows all; `bound`: a lower bound of all
    orders, with all engines full to the end; `itself`: under the run's own policy. `unknown`: the effects that the
    simulation leaves out."""

    known: float
    policy: str
    oracle: float
    bound: float
    itself: float
    unknown: list[str] = Field(default_factory=list[str])


class Explained(JsonModel):
    """The use of the workers' time of a job, with advice. `live`: whether the job runs, so that later views differ.

    `seconds`: time of the run's start plus the makespan; for a running job the time so far, from the queueing of the
    first request among those in the store when the first viewer connected. `worker_seconds`: time of all `workers`, the
    sum of the known parts. `findings`: at most MOST_FINDINGS, by decreasing lost time. `tail`: a sentence on the
    response that is expected to end last, "" before the tail. `best`: None if unknown, for the reason `no_best`.
    `notes`: limits of the explanation, for readers.
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
    """A job: its fleet, its leases by worker, its batches, its weights. `live`: False for a run that has ended."""

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
    """The fields of a JobView that change fastest, sent between two views to show a silent worker without delay."""

    now: float
    card: JobCard
    lanes: list[WorkerLane]


class GroupColumns(JsonModel):
    """Groups of a batch as columns. `waiting`, `running`, `ok`, `failed` (ended otherwise): numbers of responses.
    `longest`: tokens of the longest finished one; `estimate`: expected tokens of a response, None while unknown."""

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
    """A running response. `since`: start of its lease; `tokens`: number so far; `expected`: its group's estimate of the
    length, None while unknown; `ends_in`: expected seconds to its end, at its worker's pace, None while unknown."""

    request: str
    worker: str
    since: float
    tokens: int
    expected: int | None = None
    ends_in: float | None = None
    chunks: int = 1


class BatchView(JsonModel):
    """A batch. `estimates`, `lengths`: of each finished response, the estimate before its end and its length."""

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
    """A response, or its next part: the tokens from `start` on. `text`: the text of each token, None without a
    tokenizer. `logprobs`: natural logarithms, None if none are recorded. `length`: number of tokens so far. `expected`:
    for an ended response, its group's estimate of the length just before the end; None if there was none."""

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
    """A group with its responses. `prompt`: as text, or as the list of its token ids; `note`: the reason why token ids
    are shown in place of text, "" if they are not."""

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
    """The reason why a stream of views ends. `status`: 401, 403, 404 as in HTTP; 503: no answer of the store, retry."""

    status: int
    detail: str
