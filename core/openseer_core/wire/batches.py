"""Batches, groups and results as JSON over HTTP. Client and server share these classes.

Field names are snake_case; unknown fields are refused, so that a misspelt name raises an error. Token ids are int32,
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
"""Size limit of the metadata of one batch or group, in bytes of JSON in UTF-8."""
MAX_PAGE = 1024
"""Limit of results in one page."""
MAX_WAIT_SECONDS = 60.0
"""Limit of one long poll, in seconds."""

LikelyToken = Annotated[tuple[int, float], Field(strict=False)]
"""A token id and its log-probability, in JSON a list of two."""
Purpose = Literal["train", "eval"]
PriorityName = Literal["high", "normal", "low"]


def metadata_problem(metadata: Mapping[str, JsonValue]) -> str | None:
    """The reason why metadata are refused; None if they are within the limit."""
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) if metadata else 0
    return f"metadata: found {size} bytes, allowed: {MAX_METADATA_BYTES}" if size > MAX_METADATA_BYTES else None


class Target(JsonModel):
    """The number of groups that a batch needs, and the fate of the rest.

    Submit more groups than `groups` (over-submission) and stop early. With `count: valid` the trainer's verdicts count,
    and the trainer submits groups until enough are valid (`Batch.wanted` is the number of missing ones).
    """

    groups: int = Field(ge=1, le=10**6, description="Number of groups after which the batch has enough.")
    count: Literal["finished", "valid"] = Field(
        default="finished",
        description="finished: groups whose responses are all complete. valid: groups that the trainer judged valid.",
    )
    rest: Literal["cancel", "carry"] = Field(
        default="cancel",
        description="Unfinished groups when the target is met. cancel: ended, partial responses reported. carry: kept "
        "for a later batch opened with carry, reported here as carried_over.",
    )


class BatchSpec(JsonModel):
    """A batch as a trainer opens it, for one weights version."""

    weights_version: VersionName | None = Field(
        default=None,
        description="Version that samples; after the fleet has moved to another, new groups are refused (409). Unset: "
        "the fleet's version when the batch is opened; then new groups follow the fleet.",
    )
    adapter: VersionName | None = Field(
        default=None,
        description="Name of a LoRA adapter, whose present version samples; new groups follow it, unless "
        "weights_version names that version.",
    )
    purpose: Purpose = Field(default="train", description="eval batches run beside training ones.")
    priority: PriorityName = Field(default="normal", description="Requests of a higher priority are claimed first.")
    sampling: Sampling | None = Field(default=None, description="By the manifest's names; unset: the job's.")
    group_size: int | None = Field(
        default=None, ge=1, le=MAX_GROUP_SIZE, description="Responses per group without `n`; unset: the job's."
    )
    target: Target | None = Field(default=None, description="Stops the batch early; unset: all groups are completed.")
    carry: bool = Field(default=False, description="Takes over groups that earlier batches carried over.")
    max_staleness: int | None = Field(
        default=None,
        ge=0,
        le=INT53_MAX,
        description="Carried groups whose oldest token is more published versions behind are dropped; unset: no limit.",
    )
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Returned with the batch.")
    traceparent: str | None = Field(
        default=None, max_length=512, description="W3C traceparent; unset: the call's header field."
    )


class Group(JsonModel):
    """A prompt and its number of responses; exactly one of prompt_token_ids, prompt and messages."""

    id: GroupName = Field(
        description="Unique within the batch; the same group again is a repeat, a different one under it is refused."
    )
    prompt_token_ids: Annotated[TokenIds, Field(min_length=1, max_length=MAX_PROMPT_TOKENS)] | None = None
    prompt: Annotated[str, StringConstraints(min_length=1)] | None = None
    messages: ChatMessages | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_GROUP_SIZE, description="Responses; unset: the batch's.")
    sampling: Sampling | None = Field(default=None, description="Unset: the batch's.")
    reserve: bool = Field(
        default=False, description="Runs only when no other request of any batch of its priority waits."
    )
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Returned with each result.")

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
    """The counts of an upload: each group was accepted, or was present already."""

    accepted: int
    present: int


class BatchMetrics(JsonModel):
    """Counts and rates of one batch; `flat()` returns them for a trainer's logger. `tokens`: of all responses, appended
    and scored ones included; `tokens_per_second`: without carried ones. `length_mean`, `length_max`: of whole ones.

    Workers do not count drafts by batch: these numbers are of the whole fleet, from the first read of the batch to
    its end. `draft_share`: of the generated tokens; `acceptance_length`: mean tokens per request and step.
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
        """Prefixed name → number."""
        return {prefix + name: float(value) for name, value in self.model_dump().items()}


BatchState = Literal["open", "sealed", "complete", "acknowledged"]


class Batch(JsonModel):
    """The state of a batch.

    `state`: open accepts groups; sealed does not; complete has all its results; acknowledged: its data are deleted.
    `progress`: share of the requests that have ended. `eta_seconds`: until the last one ends, by the groups' length
    estimates and the batch's mean tokens per second; None while no length is known. `tail`: whether fewer than a tenth
    of the requests are left. `wanted`: number of groups that the target still needs. `job`: NAMESPACE/NAME;
    `opened_at`: seconds of the store's clock. A store that was emptied issues the same ids again; `job` and `opened_at`
    distinguish such batches.
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
    """Tokens `start` up to `end` of a response were sampled with this version."""

    version: str
    start: int
    end: int


class ChunkInfo(JsonModel):
    """A past lease: its worker, its tokens `start` up to `end`, its times. Appended tokens have event `append`."""

    worker: str
    start: int
    end: int
    claimed_at: float
    ended_at: float
    event: str
    version: str


class Origin(JsonModel):
    """Batch and name under which a carried-over group was first submitted."""

    batch: int
    group: str


class ResultItem(JsonModel):
    """A finished turn of a request.

    `logprobs`: one per token, 0.0 for appended tokens; None when the job records none. An entry is None where it was
    not finite, which only results of earlier releases contain: such a response now fails. `sampled`: spans [start, end)
    of tokens that the model sampled; the others were appended by the trainer, or given and scored. `status`: only ok is
    a complete sample. `top_logprobs`: for each token the likeliest tokens of its position, as pairs of id and
    log-probability, likeliest first; None without topLogprobs. Tokens cut by topK, topP or minP are left out, and
    appended tokens have none. `routed_experts`: None unless the job captures them.
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
        """`logprobs` for training. Raises ValueError if one was not finite."""
        if self.logprobs is None or None not in self.logprobs:
            return cast("list[float] | None", self.logprobs)
        place = self.logprobs.index(None)
        raise ValueError(
            f"group {self.group}, response {self.index}: the log-probability of token {place} was not finite, so it is "
            "no sample; sample the group again"
        )

    def mask(self) -> list[bool]:
        """One flag per token: whether the model sampled it."""
        marks = [False] * len(self.token_ids)
        for start, end in self.sampled:
            marks[start:end] = [True] * (end - start)
        return marks


class GroupItem(JsonModel):
    """All requests of a group have ended. `whole`: every one is ok, so the group may be used for training."""

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
    """The last line of a stream: the batch is complete and all entries up to `cursor` were sent."""

    kind: Literal["end"] = "end"
    cursor: int


Item = Annotated[ResultItem | GroupItem | EndItem, Field(discriminator="kind")]


class ResultPage(JsonModel):
    """Results and ends of groups after a cursor. `cursor`: start of the next page; `complete`: no entries follow."""

    items: list[Annotated[ResultItem | GroupItem, Field(discriminator="kind")]]
    cursor: int
    complete: bool


class Acknowledge(JsonModel):
    """The trainer has stored all entries up to `cursor`; after a complete batch's last one its data are deleted."""

    cursor: int = Field(ge=0, le=INT53_MAX)


class Cancel(JsonModel):
    """The requests to end; without `groups`: the whole batch."""

    groups: list[KnownGroupName] | None = None
    index: int | None = Field(
        default=None, ge=0, lt=MAX_GROUP_SIZE, description="With exactly one group: only this request."
    )


class Count(JsonModel):
    """The number of requests, groups or verdicts that a call has changed."""

    count: int


class Verdicts(JsonModel):
    """Verdicts on finished groups: whether they are useful for training. A later verdict replaces an earlier one."""

    valid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])
    invalid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])


class Continue(JsonModel):
    """Continues a finished request after its environment's turn.

    `turn`: the turn that has finished (0 at first), which makes a repeat of the call harmless.
    """

    turn: int = Field(ge=0, le=INT32_MAX)
    token_ids: Annotated[TokenIds, Field(max_length=MAX_PROMPT_TOKENS)] = Field(
        default_factory=list[int], description="Appended to the response before it continues."
    )


class RequestInfo(JsonModel):
    """The state of a request, with its tokens so far."""

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
    """The state of a group. `estimate`: expected length of its responses, in tokens."""

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
