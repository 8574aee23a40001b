"""What crosses HTTP between a trainer and openseer: batches, groups, results. The client and the server share it.

Field names are snake_case; unknown fields are refused, so that a misspelt one is no silence. Token ids are int32,
log-probabilities float32 (natural logarithm). Times are seconds of the store's clock.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue, StringConstraints, model_validator

from openseer_core.chat import ChatMessages
from openseer_core.json_model import (
    INT32_MAX,
    INT53_MAX,
    GroupName,
    JsonModel,
    KnownGroupName,
    TokenIds,
    VersionName,
)
from openseer_core.manifest.generation import Sampling
from openseer_core.wire.routed import RoutedRows, Span

MAX_GROUP_SIZE = 1024
MAX_PROMPT_TOKENS = 2**20
MAX_METADATA_BYTES = 16 * 2**10
"""Of one batch's or one group's metadata, as JSON in UTF-8."""
MAX_PAGE = 1024
"""Most results in one page."""
MAX_WAIT_SECONDS = 60.0
"""Longest wait of one long poll."""

LikelyToken = Annotated[tuple[int, float], Field(strict=False)]
"""A token id and its log-probability, in JSON a list of two."""
Purpose = Literal["train", "eval"]
PriorityName = Literal["high", "normal", "low"]


def metadata_problem(metadata: Mapping[str, JsonValue]) -> str | None:
    """Why metadata are refused; None when they are not too long."""
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) if metadata else 0
    return f"metadata: found {size} bytes, allowed: {MAX_METADATA_BYTES}" if size > MAX_METADATA_BYTES else None


class Target(JsonModel):
    """When a batch has enough, and what becomes of the rest.

    Submit more groups than `groups` (over-submission) and stop early; with `count: valid` the trainer's verdicts count,
    and it goes on submitting until they suffice (`Batch.wanted` says how many more are needed).
    """

    groups: int = Field(ge=1, le=10**6, description="Groups that are enough.")
    count: Literal["finished", "valid"] = Field(
        default="finished",
        description="finished: groups whose every response is whole. valid: those that the trainer called valid.",
    )
    rest: Literal["cancel", "carry"] = Field(
        default="cancel",
        description="What becomes of unfinished groups. cancel: ended, partial responses reported. carry: kept for a "
        "later batch opened with carry, reported here as carried_over.",
    )


class BatchSpec(JsonModel):
    """A batch as a trainer opens it. It belongs to one weights version."""

    weights_version: VersionName | None = Field(
        default=None,
        description="Version that samples; once the fleet has another, new groups are refused (409). Unset: the one "
        "the fleet has when the batch is opened; then groups follow the fleet.",
    )
    adapter: VersionName | None = Field(
        default=None,
        description="Name of a LoRA adapter, whose present version samples; new groups follow it, unless "
        "weights_version names that version.",
    )
    purpose: Purpose = Field(default="train", description="eval batches run beside training ones.")
    priority: PriorityName = Field(default="normal", description="Whose requests are claimed first.")
    sampling: Sampling | None = Field(
        default=None, description="How tokens are drawn, by the manifest's names; unset: the job's own."
    )
    group_size: int | None = Field(
        default=None, ge=1, le=MAX_GROUP_SIZE, description="Responses of a group that states none; unset: the job's."
    )
    target: Target | None = Field(default=None, description="When it has enough; unset: when all groups are done.")
    carry: bool = Field(default=False, description="Takes over groups that earlier batches carried over.")
    max_staleness: int | None = Field(
        default=None,
        ge=0,
        le=INT53_MAX,
        description="Carried groups whose oldest token is more published versions behind are dropped; unset: none is.",
    )
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Comes back with the batch.")


class Group(JsonModel):
    """A prompt and how many responses it gets; exactly one of prompt_token_ids, prompt and messages."""

    id: GroupName = Field(
        description="Unique within the batch; the same group again changes nothing, another of that name is refused."
    )
    prompt_token_ids: Annotated[TokenIds, Field(min_length=1, max_length=MAX_PROMPT_TOKENS)] | None = None
    prompt: Annotated[str, StringConstraints(min_length=1)] | None = None
    messages: ChatMessages | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_GROUP_SIZE, description="Responses; unset: the batch's.")
    sampling: Sampling | None = Field(default=None, description="Unset: the batch's.")
    reserve: bool = Field(default=False, description="Runs only when nothing else of its batch waits.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Comes back with each result.")

    @model_validator(mode="after")
    def _one_prompt(self) -> "Group":
        given = [self.prompt_token_ids is not None, self.prompt is not None, self.messages is not None]
        if sum(given) != 1:
            raise ValueError("exactly one of prompt_token_ids, prompt and messages is needed")
        return self


class GroupsUpload(JsonModel):
    """Groups to queue; also accepted as one Group a line (application/x-ndjson)."""

    groups: list[Group]


class UploadReceipt(JsonModel):
    """What became of an upload: every group is accepted or was there already."""

    accepted: int
    present: int


class BatchMetrics(JsonModel):
    """Counts and rates of one batch; `flat()` is what a trainer's logger takes. `tokens`: of all responses, those that
    were appended or scored included. `length_mean`, `length_max`: of the responses that ended whole; 0 while there is
    none.

    Of drafts the workers keep no account by batch: these are of the whole fleet, from the first look at the batch to
    its end. `draft_share`: of the generated tokens; `acceptance_length`: tokens that a request gained in a step.
    """

    groups: int = 0
    groups_finished: int = 0
    groups_whole: int = 0
    groups_valid: int = 0
    groups_invalid: int = 0
    groups_carried: int = 0
    groups_stale: int = 0
    requests: int = 0
    requests_ok: int = 0
    requests_aborted: int = 0
    requests_infra_failed: int = 0
    requests_carried_over: int = 0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    tail_seconds: float = 0.0
    length_mean: float = 0.0
    length_max: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_share: float = 0.0
    acceptance_length: float = 1.0

    def flat(self, prefix: str = "rollout/") -> dict[str, float]:
        """Name → number."""
        return {prefix + name: float(value) for name, value in self.model_dump().items()}


BatchState = Literal["open", "sealed", "complete", "acknowledged"]


class Batch(JsonModel):
    """A batch as it stands.

    `state`: open takes groups; sealed does not; complete has all its results; acknowledged: its data are gone.
    `progress`: share of the requests that are done. `eta_seconds`: until the last one ends, by the groups' length
    estimates and the batch's mean tokens per second; None while no length is known.
    `tail`: whether fewer than a tenth of the requests are left. `wanted`: how many more groups would meet the target.
    `job`: NAMESPACE/NAME; `opened_at`: seconds of the store's clock. A store that was emptied gives numbers again:
    these two tell such batches apart.
    """

    id: int
    job: str = ""
    opened_at: float = 0.0
    state: BatchState
    weights_version: str
    purpose: Purpose
    priority: PriorityName
    target: Target | None = None
    target_met: bool = False
    wanted: int = 0
    progress: float = 0.0
    eta_seconds: float | None = None
    tail: bool = False
    last_cursor: int = 0
    acknowledged_cursor: int = 0
    metrics: BatchMetrics = BatchMetrics()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class BatchList(JsonModel):
    """Batches by number, the latest last."""

    batches: list[Batch]


class VersionSpan(JsonModel):
    """Tokens `start` up to `end` of a response were sampled with these weights."""

    version: str
    start: int
    end: int


class ChunkInfo(JsonModel):
    """Who generated tokens `start` up to `end`, when. Appended tokens are a chunk of event `append`."""

    worker: str
    start: int
    end: int
    claimed_at: float
    ended_at: float
    event: str
    version: str


class Origin(JsonModel):
    """Where a group was submitted, and under which name, that has been carried over since."""

    batch: int
    group: str


class ResultItem(JsonModel):
    """A finished request: one of its turns.

    `logprobs`: of each token, None when the job records none; of appended tokens 0.0. An entry is None where it was not
    finite: only in what earlier releases stored, for such a response fails now. `sampled`: spans [start, end) of tokens
    that the model drew; the others were appended by the trainer, or given and scored. `status`: only ok is a whole
    sample. `top_logprobs`: for each token the likeliest ones in its place, as pairs of id and log-probability, the
    likeliest first; None without topLogprobs. Those that topK, topP or minP has cut are left out, and appended tokens
    have none. `routed_experts`: None unless the job captures them.
    """

    kind: Literal["result"] = "result"
    cursor: int
    batch: int
    group: str
    carried_from: Origin | None = None
    index: int
    turn: int
    status: Literal["ok", "aborted", "infra_failed", "carried_over"]
    finish_reason: str
    stop_reason: str | None = None
    weights_version: str
    versions: list[VersionSpan]
    prompt_token_ids: list[int]
    token_ids: list[int]
    logprobs: list[float | None] | None = None
    top_logprobs: list[list[LikelyToken]] | None = None
    routed_experts: RoutedRows | None = None
    logprobs_of: Literal["sampled", "raw"] | None = None
    sampled: list[Span]
    text: str | None = None
    chunks: list[ChunkInfo]
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    enqueued_at: float
    finished_at: float

    def scores(self) -> list[float] | None:
        """`logprobs`, to learn from. Raises ValueError where one was not finite."""
        if self.logprobs is None or None not in self.logprobs:
            return cast("list[float] | None", self.logprobs)
        place = self.logprobs.index(None)
        raise ValueError(
            f"group {self.group}, response {self.index}: the log-probability of token {place} was not finite, so it is "
            "no sample; sample the group again"
        )

    def mask(self) -> list[bool]:
        """One a token: whether the model drew it."""
        marks = [False] * len(self.token_ids)
        for start, end in self.sampled:
            marks[start:end] = [True] * (end - start)
        return marks


class GroupItem(JsonModel):
    """All of a group's requests have ended. `whole`: every one is ok, so that it may be trained on."""

    kind: Literal["group"] = "group"
    cursor: int
    batch: int
    group: str
    carried_from: Origin | None = None
    size: int
    ok: int
    aborted: int
    infra_failed: int
    carried_over: int
    whole: bool
    finished_at: float


class EndItem(JsonModel):
    """The last line of a stream: the batch is complete and everything up to `cursor` was sent."""

    kind: Literal["end"] = "end"
    cursor: int


Item = Annotated[ResultItem | GroupItem | EndItem, Field(discriminator="kind")]


class ResultPage(JsonModel):
    """Results and group events after a cursor. `cursor`: where the next page begins; `complete`: no more will come."""

    items: list[Annotated[ResultItem | GroupItem, Field(discriminator="kind")]]
    cursor: int
    complete: bool


class Acknowledge(JsonModel):
    """Everything up to `cursor` is safe with the trainer. Of a complete batch's last cursor: its data go."""

    cursor: int = Field(ge=0, le=INT53_MAX)


class Cancel(JsonModel):
    """What to end; nothing named: the whole batch."""

    groups: list[KnownGroupName] | None = None
    index: int | None = Field(
        default=None, ge=0, lt=MAX_GROUP_SIZE, description="With exactly one group: only this request."
    )


class Count(JsonModel):
    """How many requests, groups or verdicts a call has changed."""

    count: int


class Verdicts(JsonModel):
    """Which finished groups are worth training on (an all-equal reward is not, say); a later verdict replaces it."""

    valid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])
    invalid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])


class Continue(JsonModel):
    """Goes on with a finished request after its environment's turn.

    `turn`: the turn that has finished (0 at first): a repeat of the same call changes nothing.
    """

    turn: int = Field(ge=0, le=INT32_MAX)
    token_ids: Annotated[TokenIds, Field(max_length=MAX_PROMPT_TOKENS)] = Field(
        default_factory=list[int], description="Appended to the response before it goes on."
    )


class RequestInfo(JsonModel):
    """A request as it stands, with its tokens so far."""

    batch: int
    group: str
    index: int
    turn: int
    state: str
    finish_reason: str | None = None
    worker: str | None = None
    token_ids: list[int]
    logprobs: list[float | None] | None = None
    sampled: list[Span]
    versions: list[VersionSpan]
    chunks: list[ChunkInfo]


class GroupInfo(JsonModel):
    """A group as it stands. `estimate`: expected length of its responses, in tokens."""

    batch: int
    group: str
    carried_from: Origin | None = None
    weights_version: str
    size: int
    finished: int
    estimate: int
    valid: bool | None = None
    prompt_token_ids: list[int]
    requests: list[RequestInfo]
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class GroupNames(JsonModel):
    """Names of a batch's groups in the order of submission, from `start` on."""

    start: int
    groups: list[str]
