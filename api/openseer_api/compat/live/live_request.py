"""A live request: one response that a waiting HTTP call wants, and how it ended."""

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
    """One wanted response. `sampling`: JSON, without a seed. `name`: of its group, "" where none was given.

    `explicit_group`: the caller gave its group (by a name, or as n responses of one call). `text_form`: of its
    text. `adapter`: the name of the one that it asks for, "" for none. `ended`: its result; None when it was cancelled
    before it was queued. `caller`: the span of its call. `request_id`: set once it is queued. `cancelled`: nobody wants
    it any more. `routed`: routed experts of its result, None where none are captured.
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
        """Equal for live requests of one group."""
        return self.name, self.prompt, self.sampling, self.adapter


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
    """A response that has ended. `finish`: stop, length or abort. `stop`: the stop string or token that ended it.

    `at_end`: that is the model's own end token. `versions`: spans of weights versions. `prompt_logprobs`: of its
    prompt's last tokens, from the wanted one on, by the weights `prompt_version`; None where none are wanted, or their
    computation was aborted. `ranked`, `prompt_ranked`: for each token its rank and the likeliest ones; empty where
    none are wanted. `routed`: of its routed experts, None where none are captured.
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
        """What ended it as vLLM has it: the model's own end is no reason."""
        return None if self.at_end else self.stop

    @property
    def version(self) -> str | None:
        """The weights of its last token."""
        return self.versions[-1]["version"] if self.versions else None


def response_of(
    result: Result | None, codec: TextCodec | None, form: TextForm, routed: RoutedExperts | None = None
) -> FinishedResponse:
    """The response as a client gets it; what has failed is no sample of the model.

    Raises InputError with the reason for which the engine cannot run the request, FailedResponseError where its weights
    are the reason, LostError when the fleet has failed.
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
    """A response with the log-probabilities of its prompt, which it shares the end of an abort with.

    None: nothing was to be sampled, so it is an empty one.
    """
    found = response or replace(scores, tokens=[], logprobs=[], ranked=[], text="", stop=None, versions=[])
    if scores.finish == "abort":
        return replace(found, finish="abort")
    scored = {"prompt_logprobs": scores.logprobs, "prompt_ranked": scores.ranked}
    return replace(found, prompt_version=scores.version, **scored)


def _is_end(token: int, sampling: Sampling, read: Reader | None) -> bool:
    """Whether a token that ended a response is the model's own end, as vLLM sees it."""
    if sampling.ignore_eos or read is None or read.end is None:
        return token not in sampling.stop_token_ids
    return token == read.end
