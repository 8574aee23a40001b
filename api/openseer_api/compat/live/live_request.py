"""A live request: one response that a waiting HTTP call wants, and how it ended."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openseer_api.compat.live.refusals import LostError
from openseer_api.http.rendering import version_spans
from openseer_core.errors import OpenseerError
from openseer_core.ids import RequestId
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Result
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_text.rendering import TextCodec
from openseer_text.stop_strings import visible_text

_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CONTEXT_FULL: "length"}


@dataclass(slots=True, eq=False)
class LiveRequest:
    """One wanted response. `sampling`: JSON, without a seed. `name`: of its group, "" where none was given.

    `explicit_group`: the caller gave its group (by a name, or as n responses of one call). `keeps_stop`: its text holds
    the stop string that ended it. `ended`: its result; None when it was cancelled before it was queued. `request_id`:
    set once it is queued. `cancelled`: nobody wants it any more.
    """

    prompt: bytes
    sampling: str
    max_tokens: int
    seed: int | None
    name: str
    explicit_group: bool
    keeps_stop: bool
    ended: "asyncio.Future[Result | None]"
    request_id: RequestId | None = None
    cancelled: bool = False

    @property
    def group_key(self) -> tuple[str, bytes, str]:
        """Equal for live requests of one group."""
        return self.name, self.prompt, self.sampling


def resolve(live_request: LiveRequest, outcome: "Result | OpenseerError | None") -> None:
    """Sets how it ended; only the first outcome counts."""
    if live_request.ended.done():
        return
    if isinstance(outcome, OpenseerError):
        live_request.ended.set_exception(outcome)
        live_request.ended.exception()  # read once, so that asyncio logs nothing when nobody waits any more
    else:
        live_request.ended.set_result(outcome)


@dataclass(frozen=True, slots=True)
class FinishedResponse:
    """A response that has ended. `finish`: stop, length or abort. `versions`: spans of weights versions."""

    tokens: list[int]
    logprobs: list[float]
    finish: str
    stop: str | int | None
    text: str
    versions: list[dict[str, Any]]

    @property
    def version(self) -> str | None:
        """The weights of its last token."""
        return self.versions[-1]["version"] if self.versions else None


def response_of(result: Result | None, codec: TextCodec | None, *, keeps_stop: bool) -> FinishedResponse:
    """The response as a client gets it. Raises LostError when the fleet has failed: that is no sample of the model."""
    if result is None:
        return FinishedResponse([], [], "abort", None, "", [])
    if result.status is Status.INFRA_FAILED:
        raise LostError(f"request {result.request} lost its workers too often; send it again")
    tokens = unpack_tokens(result.tokens)
    sampling = parse_sampling(result.sampling)
    read = codec.read if codec is not None else None
    text = ""
    if read is not None:
        text = read(tokens) if keeps_stop else visible_text(read, tokens, result.stop_reason, sampling.stop)
    return FinishedResponse(
        tokens=tokens,
        logprobs=unpack_logprobs(result.logprobs) if len(result.logprobs) == len(result.tokens) else [],
        finish=_REASONS.get(result.reason, "abort"),
        stop=_stop(result.stop_reason, sampling.stop_token_ids),
        text=text,
        versions=version_spans(result.chunks),
    )


def _stop(reason: str, token_ids: Sequence[int]) -> str | int | None:
    if not reason:
        return None
    return int(reason) if reason.isdigit() and int(reason) in token_ids else reason
