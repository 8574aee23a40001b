"""One response that a waiting HTTP request wants, and what it is when it has ended."""

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
    """A response that is wanted. `sampling`: JSON, without a seed. `name`: of its group, "" where none was given.

    `told`: its group is what the caller says (a name, or n responses of one call). `keeps_stop`: its text holds the
    stop string that ended it. `ended`: its result; None when it
    was ended before it was queued. `request`: once it is queued. `dropped`: nobody wants it any more.
    """

    prompt: bytes
    sampling: str
    max_tokens: int
    seed: int | None
    name: str
    told: bool
    keeps_stop: bool
    ended: "asyncio.Future[Result | None]"
    request: RequestId | None = None
    dropped: bool = False

    @property
    def likeness(self) -> tuple[str, bytes, str]:
        """Equal for responses of one group."""
        return self.name, self.prompt, self.sampling


def tell(member: LiveRequest, outcome: "Result | OpenseerError | None") -> None:
    """Tells whoever waits how it ended; the first word counts."""
    if member.ended.done():
        return
    if isinstance(outcome, OpenseerError):
        member.ended.set_exception(outcome)
        member.ended.exception()  # read once: if nobody waits any more, that is no event for the log
    else:
        member.ended.set_result(outcome)


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
    """What a client is told. Raises LostError when the fleet has failed: that is no sample of the model."""
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
