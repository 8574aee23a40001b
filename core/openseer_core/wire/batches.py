"""Batches, groups and requests as JSON over HTTP. Client and server share these classes.

Field names are snake_case; unknown fields are refused, so that a misspelt name raises an error. Token ids are int32,
log-probabilities float32 (natural logarithm). Times are seconds of the store's clock.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

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
from openseer_core.wire.results import ChunkInfo, Origin, VersionSpan
from openseer_core.wire.routed import Span

MAX_GROUP_SIZE = 1024
MAX_PROMPT_TOKENS = 2**20
MAX_METADATA_BYTES = 16 * 2**10
"""Size limit of the metadata of one batch or group, as JSON in UTF-8, in bytes."""
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
    traceparent: str | None = Field(
        default=None, max_length=512, description="W3C traceparent; unset: the call's header field."
    )


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
    """Groups to submit. Lines with one Group each are accepted too (application/x-ndjson)."""

    groups: list[Group] = Field(description="Groups to queue, in this order.")


class UploadReceipt(JsonModel):
    """The numbers of an upload's groups that were accepted, and that were present already."""

    accepted: int = Field(description="Number of new groups.")
    present: int = Field(description="Number of groups that the batch already had.")


class BatchMetrics(JsonModel):
    """Counts and rates of one batch; `flat()` returns them for a trainer's logger. `tokens`: of all responses, appended
    and scored ones included; `tokens_per_second`: without tokens of earlier batches. `length_mean`, `length_max`: of
    the responses with status ok.

    Workers do not count drafts by batch, so these numbers are of the whole fleet, from the first read of the batch to
    its end. `draft_share`: of the generated tokens; `acceptance_length`: mean tokens per request and step.
    """

    groups: int = Field(default=0, description="Submitted groups, carried ones included.")
    groups_finished: int = Field(default=0, description="Groups whose requests have all ended.")
    groups_whole: int = Field(default=0, description="Groups whose responses are all complete.")
    groups_valid: int = Field(default=0, description="Groups that the trainer judged valid.")
    groups_invalid: int = Field(default=0, description="Groups that the trainer judged invalid.")
    groups_carried: int = Field(default=0, description="Groups of which a request was carried over to a later batch.")
    groups_stale: int = Field(
        default=0, description="Groups not carried over into this batch: tokens of too old versions."
    )
    requests: int = Field(default=0, description="Requests of these groups.")
    requests_ok: int = Field(default=0, description="Complete responses.")
    requests_aborted: int = Field(default=0, description="Aborted or cancelled requests.")
    requests_infra_failed: int = Field(default=0, description="Requests that failed by losses of workers or by errors.")
    requests_carried_over: int = Field(default=0, description="Requests carried over to a later batch.")
    tokens: int = Field(default=0, description="Tokens generated or scored, of all responses; without appended ones.")
    seconds: float = Field(default=0.0, description="Time from the first claim to the end, or to now, in seconds.")
    tokens_per_second: float = Field(default=0.0, description="Tokens without carried ones, divided by seconds.")
    tail_seconds: float = Field(default=0.0, description="Duration of the tail, in seconds.")
    length_mean: float = Field(default=0.0, description="Mean length of complete responses, in tokens.")
    length_max: int = Field(default=0, description="Longest complete response, in tokens.")
    drafted_tokens: int = Field(default=0, description="Drafted tokens of the whole fleet.")
    accepted_tokens: int = Field(default=0, description="Accepted ones of these tokens.")
    draft_share: float = Field(default=0.0, description="Share of the generated tokens that were drafted, 0 to 1.")
    acceptance_length: float = Field(default=1.0, description="Mean tokens per request and step; 1 without drafts.")

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

    id: int = Field(description="Number of the batch.")
    job: str = Field(default="", description="NAMESPACE/NAME of the job.")
    opened_at: float = Field(default=0.0, description="Time of the opening, in seconds of the store's clock.")
    state: BatchState = Field(
        description="open accepts groups; sealed does not; complete has all results; acknowledged: data are deleted."
    )
    weights_version: str
    purpose: Purpose
    priority: PriorityName
    target: Target | None = None
    target_met: bool = Field(default=False, description="Whether the target is met.")
    wanted: int = Field(default=0, description="Number of groups that the target still needs.")
    progress: float = Field(default=0.0, description="Share of the requests that have ended, 0 to 1.")
    eta_seconds: float | None = Field(
        default=None,
        description="Expected time until the last request ends, in seconds; None while no length is known, or while "
        "the unfinished responses are longer than expected.",
    )
    tail: bool = Field(default=False, description="Whether at most a tenth of the requests is unfinished.")
    last_cursor: int = Field(default=0, description="Cursor of the last entry of the results stream.")
    acknowledged_cursor: int = Field(default=0, description="Last acknowledged cursor.")
    metrics: BatchMetrics = BatchMetrics()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class BatchList(JsonModel):
    """Batches in the order of their ids, the latest last."""

    batches: list[Batch] = Field(description="By number, the latest last.")


class Acknowledge(JsonModel):
    """The trainer has stored all entries up to `cursor`. After the last of a complete batch its data are deleted."""

    cursor: int = Field(ge=0, le=INT53_MAX, description="Cursor of the last stored entry.")


class Cancel(JsonModel):
    """The requests to end; without `groups`, all of the batch."""

    groups: list[KnownGroupName] | None = Field(
        default=None, description="Names of the groups; unset: the whole batch."
    )
    index: int | None = Field(
        default=None, ge=0, lt=MAX_GROUP_SIZE, description="With exactly one group: only this request."
    )


class Count(JsonModel):
    """The number of requests, groups or verdicts that a call has changed."""

    count: int = Field(description="The number of requests, groups or verdicts.")


class Verdicts(JsonModel):
    """Verdicts on finished groups: valid for training, or not. A later verdict replaces an earlier one."""

    valid: list[KnownGroupName] = Field(
        default_factory=list[KnownGroupName], description="Names of groups that are useful for training."
    )
    invalid: list[KnownGroupName] = Field(
        default_factory=list[KnownGroupName], description="Names of groups that are not useful for training."
    )


class Continue(JsonModel):
    """Continues a finished request after its environment's turn.

    `turn`: number of the finished turn, from 0; with it a repeat of the call has no effect.
    """

    turn: int = Field(ge=0, le=INT32_MAX, description="The turn that has finished, counted from 0.")
    token_ids: Annotated[TokenIds, Field(max_length=MAX_PROMPT_TOKENS)] = Field(
        default_factory=list[int], description="Appended to the response before it continues."
    )


class RequestInfo(JsonModel):
    """The state of a request, with its tokens so far."""

    batch: int
    group: str
    index: int
    turn: int = Field(description="Number of the present turn, counted from 0.")
    state: str
    finish_reason: str | None = None
    worker: str | None = Field(
        default=None, description="The worker that runs it; None while it waits or after its end."
    )
    token_ids: list[int] = Field(description="Token ids so far, int32.")
    logprobs: list[float | None] | None = Field(
        default=None,
        description="Natural logarithm of each token's probability, float32; None if the job records none.",
    )
    sampled: list[Span] = Field(description="Spans [start, end) of the tokens that the model sampled.")
    versions: list[VersionSpan]
    chunks: list[ChunkInfo] = Field(description="Past leases in order of time.")


class GroupInfo(JsonModel):
    """The state of a group. `estimate`: expected length of its responses, in tokens."""

    batch: int
    group: str
    carried_from: Origin | None = None
    weights_version: str
    size: int = Field(description="Number of requests.")
    finished: int
    estimate: int = Field(description="Expected length of a response, in tokens.")
    valid: bool | None = Field(default=None, description="The trainer's verdict; None without one.")
    prompt_token_ids: list[int]
    requests: list[RequestInfo]
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class GroupNames(JsonModel):
    """Names of a batch's groups in the order of submission; the first one is number `start`."""

    start: int = Field(description="Place of the first name in the order of submission, counted from 0.")
    groups: list[str]
