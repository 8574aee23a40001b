"""Live requests: a live request is one response for a waiting HTTP call. Also converts results for clients."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from openseer_api.compat.live.refusals import FailedResponseError, LostError
from openseer_api.http.rendering import version_spans
from openseer_core.errors import InputError, OpenseerError
from openseer_core.ids import RequestId
from openseer_core.manifest.job import Sampling
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Result
from openseer_core.queue.states import NOT_FINITE, FinishReason, Status
from openseer_core.token_scores import Ranked, own_scores, ranked
from openseer_core.tokens import readable_logprobs, unpack_tokens
from openseer_core.traces.traceparent import TraceParent
from openseer_store.routed.assembly import RoutedExperts
from openseer_text.reading import Reader
from openseer_text.rendering import TextCodec
from openseer_text.stop_strings import TextForm, stop_token, visible_text

_REASONS = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length", FinishReason.CONTEXT_FULL: "length"}


@dataclass(slots=True, eq=False)
class LiveRequest:
    """A request of the compatible routes. `prompt`: packed tokens. `sampling`: JSON, without the seed. `name`: that of
    its group, "" if the caller gave none.

    `explicit_group`: the caller determined the group, by a name or by n > 1. `text_form`: form of the response's text.
    `ended`: future of its result; the result is None if the request was cancelled before it was queued. `adapter`: name
    of the requested adapter, "" for none. `caller`: the span of its call. `request_id`: None until it is queued.
    `cancelled`: its call has ended or was aborted. `routed`: routed experts of its result, None if none are captured.
    """

    prompt: bytes
    sampling: str
    max_tokens: int
    seed: int | None
    name: str
    explicit_group: bool
    text_form: TextForm
    ended: "asyncio.Future[Result | None]"
    adapter: str = ""
    caller: TraceParent | None = None
    request_id: RequestId | None = None
    cancelled: bool = False
    routed: RoutedExperts | None = None

    @property
    def group_key(self) -> tuple[str, bytes, str, str]:
        """A key that is equal for live requests that may share a group."""
        return self.name, self.prompt, self.sampling, self.adapter


def resolve(live_request: LiveRequest, outcome: "Result | OpenseerError | None") -> None:
    """Sets the outcome of a live request, unless it has one. An OpenseerError becomes the exception of the future."""
    if live_request.ended.done():
        return
    if isinstance(outcome, OpenseerError):
        live_request.ended.set_exception(outcome)
        live_request.ended.exception()  # asyncio logs an exception that was never read
    else:
        live_request.ended.set_result(outcome)


@dataclass(frozen=True, slots=True)
class FinishedResponse:
    """A finished response. `finish`: stop, length or abort. `stop`: the stop string or token that ended it, or None.

    `at_end`: `stop` is the model's own end token. `versions`: spans of weights versions. `prompt_logprobs`:
    log-probabilities of the prompt's tokens from the requested place on, computed with weights `prompt_version`; None
    if none are requested, or if their computation was aborted. `ranked`, `prompt_ranked`: for each token its rank and
    the likeliest tokens; empty if none are requested. `routed`: the routed experts, None if none are captured.
    """

    tokens: list[int]
    logprobs: list[float | None]
    finish: str
    stop: str | int | None
    text: str
    versions: list[dict[str, Any]]
    at_end: bool = False
    prompt_logprobs: list[float | None] | None = None
    prompt_version: str | None = None
    ranked: list[Ranked] = field(default_factory=list[Ranked])
    prompt_ranked: list[Ranked] = field(default_factory=list[Ranked])
    routed: RoutedExperts | None = None

    @property
    def stop_reason(self) -> str | int | None:
        """The stop string or token in vLLM's form, which is None for the model's own end token."""
        return None if self.at_end else self.stop

    @property
    def version(self) -> str | None:
        """The weights version of the last token; None for an empty response."""
        return self.versions[-1]["version"] if self.versions else None


def response_of(
    result: Result | None, codec: TextCodec | None, form: TextForm, routed: RoutedExperts | None = None
) -> FinishedResponse:
    """Converts a result (None: cancelled before it was queued) to the response for a client.

    A failed result raises an error, because it is no sample of the model: FailedResponseError if the weights are the
    cause, InputError if the engine cannot run the request, LostError if the request lost its workers.
    """
    if result is None:
        return FinishedResponse([], [], "abort", None, "", [])
    if result.status is Status.INFRA_FAILED and result.stop_reason:
        by_weights = result.stop_reason.startswith(NOT_FINITE)
        failed = FailedResponseError if by_weights else InputError
        raise failed(f"request {result.request} failed: {result.stop_reason}")
    if result.status is Status.INFRA_FAILED:
        raise LostError(f"request {result.request} failed: {result.ended_by}; send it again")
    tokens = unpack_tokens(result.tokens)
    sampling = parse_sampling(result.sampling)
    read = codec.read if codec is not None else None
    text = visible_text(read, tokens, result.stop_reason, sampling.stop, form) if read is not None else ""
    token = None if result.stop_reason in sampling.stop else stop_token(tokens, result.stop_reason)
    return FinishedResponse(
        tokens=tokens,
        logprobs=readable_logprobs(own_scores(result.tokens, result.logprobs)),
        finish=_REASONS.get(result.reason, "abort"),
        stop=token if token is not None else result.stop_reason or None,
        text=text,
        versions=version_spans(result.chunks),
        at_end=token is not None and _is_end(token, sampling, read),
        ranked=ranked(result.tokens, result.logprobs) or [],
        routed=routed,
    )


def scored_by(response: FinishedResponse | None, scores: FinishedResponse) -> FinishedResponse:
    """Returns a response with the log-probabilities of its prompt, which are those of `scores`; if their computation
    was aborted, the response counts as aborted.

    `response` None: no token was requested, so the returned response has none.
    """
    found = response or replace(scores, tokens=[], logprobs=[], ranked=[], text="", stop=None, versions=[])
    if scores.finish == "abort":
        return replace(found, finish="abort")
    scored = {"prompt_logprobs": scores.logprobs, "prompt_ranked": scores.ranked}
    return replace(found, prompt_version=scores.version, **scored)


def _is_end(token: int, sampling: Sampling, read: Reader | None) -> bool:
    """Whether a token that ended a response counts as the model's own end token, by vLLM's rule."""
    if sampling.ignore_eos or read is None or read.end is None:
        return token not in sampling.stop_token_ids
    return token == read.end
