"""Results of a batch as JSON over HTTP. Client and server share these classes.

Token ids are int32, log-probabilities float32 (natural logarithm). Times are seconds of the store's clock.
"""

from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue

from openseer_core.json_model import JsonModel
from openseer_core.wire.routed import RoutedRows, Span

MAX_PAGE = 1024
"""Limit of entries in one page of results."""
MAX_WAIT_SECONDS = 60.0
"""Limit of one long poll, in seconds."""

LikelyToken = Annotated[tuple[int, float], Field(strict=False)]
"""A token id and its log-probability; in JSON a list of these two."""


class VersionSpan(JsonModel):
    """The tokens [start, end) of a response, which were sampled from one weights version."""

    version: str = Field(description="Weights version.")
    start: int = Field(description="First token, counted from 0.")
    end: int = Field(description="Token after the last one.")


class ChunkInfo(JsonModel):
    """The tokens [start, end) of one past lease, or appended ones (`event` is then append)."""

    worker: str = Field(description="Worker and its boot, NAME#BOOT; empty for appended tokens.")
    start: int = Field(description="First token of the chunk, counted from 0.")
    end: int = Field(description="Token after the last one.")
    claimed_at: float = Field(description="Time of the claim, in seconds of the store's clock.")
    ended_at: float = Field(description="End of the lease, in seconds of the store's clock.")
    event: str = Field(description="The event that ended the lease; append for appended tokens.")
    version: str = Field(description="Weights version of the lease.")


class Origin(JsonModel):
    """Batch and name under which a carried-over group was first submitted."""

    batch: int = Field(description="Number of the batch.")
    group: str = Field(description="Name of the group in that batch.")


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
    cursor: int = Field(description="Number of this entry in the batch's results stream.")
    batch: int = Field(description="Number of the batch.")
    group: str = Field(description="Name of the group.")
    carried_from: Origin | None = Field(default=None, description="Set for a carried-over group.")
    index: int = Field(description="Number of the request within its group, counted from 0.")
    turn: int = Field(description="Number of the turn, counted from 0.")
    status: Literal["ok", "aborted", "infra_failed", "carried_over"] = Field(
        description="Only ok is a complete sample."
    )
    finish_reason: str = Field(description="The reason of the end, such as stop or length.")
    stop_reason: str | None = Field(
        default=None,
        description="The stop string or token id that ended the response, or the cause of a failure; None otherwise.",
    )
    weights_version: str = Field(
        description="Weights version of the batch when the result was read; versions contains the sampling ones."
    )
    versions: list[VersionSpan] = Field(description="Weights versions that sampled the tokens, by span.")
    prompt_token_ids: list[int] = Field(description="Token ids of the prompt, int32.")
    token_ids: list[int] = Field(description="Token ids of the response, int32; appended tokens included.")
    logprobs: list[float | None] | None = Field(
        default=None,
        description="Natural logarithm of each token's probability, float32; 0.0 for appended tokens, None if the job "
        "records none.",
    )
    top_logprobs: list[list[LikelyToken]] | None = Field(
        default=None,
        description="For each token the likeliest tokens of its position, as pairs of id and log-probability, "
        "likeliest first.",
    )
    routed_experts: RoutedRows | None = Field(
        default=None, description="Experts of each token; None unless the job captures them."
    )
    logprobs_of: Literal["sampled", "raw"] | None = Field(
        default=None, description="The distribution of the log-probabilities, as in spec.sampling.logprobs."
    )
    sampled: list[Span] = Field(description="Spans [start, end) of the tokens that the model sampled.")
    text: str | None = Field(default=None, description="Text of the response; None without a tokenizer.")
    chunks: list[ChunkInfo] = Field(description="Past leases in order of time.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict, description="The group's metadata.")
    enqueued_at: float = Field(description="Time of submission, in seconds of the store's clock.")
    finished_at: float = Field(description="Time of the end, in seconds of the store's clock.")

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
    cursor: int = Field(description="Number of this entry in the batch's results stream.")
    batch: int = Field(description="Number of the batch.")
    group: str = Field(description="Name of the group.")
    carried_from: Origin | None = Field(default=None, description="Set for a carried-over group.")
    size: int = Field(description="Number of requests.")
    ok: int = Field(description="Number of complete responses.")
    aborted: int = Field(description="Number of aborted or cancelled requests.")
    infra_failed: int = Field(description="Number of requests that failed by losses of workers or by errors.")
    carried_over: int = Field(description="Number of requests carried over to a later batch.")
    whole: bool = Field(description="Whether all requests are ok.")
    finished_at: float = Field(description="Time of the end, in seconds of the store's clock.")


class EndItem(JsonModel):
    """The last line of a stream: the batch is complete, and all entries up to `cursor` were sent."""

    kind: Literal["end"] = "end"
    cursor: int = Field(description="Cursor of the last entry.")


Item = Annotated[ResultItem | GroupItem | EndItem, Field(discriminator="kind")]


class ResultPage(JsonModel):
    """Results and ends of groups after a cursor. `cursor`: start of the next page; `complete`: no entries follow."""

    items: list[Annotated[ResultItem | GroupItem, Field(discriminator="kind")]] = Field(
        description="Entries in the order of their cursors."
    )
    cursor: int = Field(description="Start of the next page.")
    complete: bool = Field(description="Whether the batch is complete and no entries follow.")
