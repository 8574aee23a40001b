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
"""Size limit of the metadata of one batch or group, as JSON in UTF-8, in bytes."""
MAX_PAGE = 1024
"""Limit of entries in one page of results."""
MAX_WAIT_SECONDS = 60.0
"""Limit of one long poll, in seconds."""

LikelyToken = Annotated[tuple[int, float], Field(strict=False)]
"""A token id and its log-probability; in JSON a list of these two."""
Purpose = Literal["train", "eval"]
PriorityName = Literal["high", "normal", "low"]


def metadata_problem(metadata: Mapping[str, JsonValue]) -> str | None:
    """The reason why metadata are refused; None if they are within the limit."""
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode()) if metadata else 0
    return f"metadata: found {size} bytes, allowed: {MAX_METADATA_BYTES}" if size > MAX_METADATA_BYTES else None


class Target(JsonModel):
    """The number of groups that a batch needs, and the fate of the rest.

    A trainer may submit more groups than `groups` (over-submission); the batch ends when enough are complete. With
    `count: valid` the trainer submits groups until its verdicts declare enough valid (`Batch.wanted`: still missing).
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
    """The settings with which a trainer opens a batch."""

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
    traceparent: str | None = Field(default=None, max_length=512, description="W3C's; unset: the call's header field.")


class Group(JsonModel):
    """A prompt and its number of responses. Exactly one of prompt_token_ids, prompt and messages is needed."""

    id: GroupName = Field(
        description="Unique within the batch; the same group again is a repeat, a different one under it is refused."
    )
    prompt_token_ids: Annotated[TokenIds, Field(min_length=1, max_length=MAX_PROMPT_TOKENS)] | None = None
    prompt: Annotated[str, StringConstraints(min_length=1)] | None = None
    messages: ChatMessages | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_GROUP_SIZE, description="Responses; unset: the batch's.")
    sampling: Sampling | None = Field(default=None, description="Unset: the batch's.")
    reserve: bool = Field(default=False, description="Runs only when no other request of its batch waits.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="Returned with each result.")

    @model_validator(mode="after")
    def _one_prompt(self) -> "Group":
        given = [self.prompt_token_ids is not None, self.prompt is not None, self.messages is not None]
        if sum(given) != 1:
            raise ValueError("exactly one of prompt_token_ids, prompt and messages is needed")
        return self


class GroupsUpload(JsonModel):
    """Groups to submit. Lines with one Group each are accepted too (application/x-ndjson)."""

    groups: list[Group]


class UploadReceipt(JsonModel):
    """The numbers of an upload's groups that were accepted, and that were present already."""

    accepted: int
    present: int


class BatchMetrics(JsonModel):
    """Counts and rates of one batch; `flat()` returns them for a trainer's logger. `tokens`: of all responses, appended
    and scored ones included; `tokens_per_second`: without tokens of earlier batches. `length_mean`, `length_max`: of
    the responses with status ok.

    Workers do not count drafts by batch, so these numbers are of the whole fleet, from the first read of the batch to
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
        """The metrics as prefixed name → number."""
        return {prefix + name: float(value) for name, value in self.model_dump().items()}


BatchState = Literal["open", "sealed", "complete", "acknowledged"]


class Batch(JsonModel):
    """The state of a batch.

    `state`: open accepts groups; sealed does not; complete has all its results; acknowledged: its data are deleted.
    `progress`: share of the requests that have ended. `eta_seconds`: expected time until the last one ends, from the
    groups' length estimates and the batch's mean tokens per second; None while no length is known. `tail`: whether at
    most a tenth of the requests is unfinished. `wanted`: number of groups that the target still needs. `job`:
    NAMESPACE/NAME. A store that was emptied issues the same ids again; `job` and `opened_at` distinguish such batches.
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
    """Batches in the order of their ids, the latest last."""

    batches: list[Batch]


class VersionSpan(JsonModel):
    """The tokens [start, end) of a response, which were sampled from one weights version."""

    version: str
    start: int
    end: int


class ChunkInfo(JsonModel):
    """The tokens [start, end) of one past lease, or appended ones (`event` is then append)."""

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

    `logprobs`: one per token, 0.0 for appended tokens; None if the job records none. An entry is None if it was not
    finite, only in results of earlier releases; now such a response fails. `sampled`: spans [start, end) of tokens that
    the model sampled; the others were appended by the trainer, or given and scored. `status`: only ok is a complete
    sample. `top_logprobs`: for each token the likeliest tokens of its position, as pairs of id and log-probability,
    likeliest first, without tokens cut by topK, topP or minP, and empty for appended tokens; None without topLogprobs.
    `routed_experts`: None unless the job captures them.
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
        """The log-probabilities for training, one per token. Raises ValueError if one was not finite."""
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
    """All requests of a group have ended. `whole`: all have status ok, so the group can be used for training."""

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
    """The last line of a stream: the batch is complete, and all entries up to `cursor` were sent."""

    kind: Literal["end"] = "end"
    cursor: int


Item = Annotated[ResultItem | GroupItem | EndItem, Field(discriminator="kind")]


class ResultPage(JsonModel):
    """Results and ends of groups after a cursor. `cursor`: start of the next page; `complete`: no entries follow."""

    items: list[Annotated[ResultItem | GroupItem, Field(discriminator="kind")]]
    cursor: int
    complete: bool


class Acknowledge(JsonModel):
    """The trainer has stored all entries up to `cursor`. After the last of a complete batch its data are deleted."""

    cursor: int = Field(ge=0, le=INT53_MAX)


class Cancel(JsonModel):
    """The requests to end; without `groups`, all of the batch."""

    groups: list[KnownGroupName] | None = None
    index: int | None = Field(
        default=None, ge=0, lt=MAX_GROUP_SIZE, description="With exactly one group: only this request."
    )


class Count(JsonModel):
    """The number of requests, groups or verdicts that a call has changed."""

    count: int


class Verdicts(JsonModel):
    """Verdicts on finished groups: valid for training, or not. A later verdict replaces an earlier one."""

    valid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])
    invalid: list[KnownGroupName] = Field(default_factory=list[KnownGroupName])


class Continue(JsonModel):
    """Continues a finished request after its environment's turn.

    `turn`: number of the finished turn, from 0; with it a repeat of the call has no effect.
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
    """Names of a batch's groups in the order of submission; the first one is number `start`."""

    start: int
    groups: list[str]
