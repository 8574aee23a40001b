"""vLLM's route that generates from token ids, and the routes that abort requests."""

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, model_validator

from openseer_api.compat.live.live_request import FinishedResponse
from openseer_api.compat.live.protocol_model import NOT_STREAMED, ProtocolModel, RefusingModel, Top
from openseer_api.compat.live.refusals import status_of
from openseer_api.compat.live.refused_fields import VLLM_GENERATE, Refusals
from openseer_api.compat.live.requests import live_of
from openseer_api.compat.live.sampling import Ids, SamplingFields
from openseer_api.compat.live.serving import CompletionCall, Piece, answer, encoded, open_call, pieces, responses
from openseer_api.compat.openai import rendering
from openseer_api.compat.openai.routes import SSE, STREAM_HEADERS, event
from openseer_api.compat.openai.wire import StreamOptions
from openseer_api.http.bodies import StrictRoute, body_of
from openseer_api.http.rendering import made
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.errors import InputError, OpenseerError

router = APIRouter(route_class=StrictRoute, include_in_schema=False)
PREFIX = "generate-tokens-"
"""vLLM's prefix of a request id."""


class VllmSamplingParams(SamplingFields):
    """The fields of vLLM's SamplingParams that JSON can represent."""

    closed: ClassVar[bool] = True

    logprobs: Top | None = None
    prompt_logprobs: Top | None = None
    detokenize: bool | None = None
    extra_args: dict[str, Any] | None = None

    @property
    def extra_arguments(self) -> tuple[str, dict[str, Any]]:
        """The field with the arguments for custom logits processors, by vLLM's name, and the arguments."""
        return "sampling_params.extra_args", self.extra_args or {}


class VllmGenerateRequest(RefusingModel):
    """The body of vLLM's generate route, with one prompt. Fields of KV transfer and cache salts are ignored."""

    refused: ClassVar[Refusals] = VLLM_GENERATE

    request_id: str | None = None
    token_ids: Ids = Field(min_length=1)
    sampling_params: VllmSamplingParams = Field(default_factory=VllmSamplingParams)
    model: str | None = None
    output_mode: Literal["tokens", "text"] = "tokens"
    return_token_ids: bool | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    group_id: str | None = None

    @classmethod
    def elsewhere(cls) -> Mapping[str, str]:
        """Returns sampling parameters, which belong in `sampling_params`: name → its place there."""
        return {name: f"sampling_params.{name}" for name in VllmSamplingParams.model_fields.keys() - cls.known()}

    @model_validator(mode="after")
    def _text_is_read(self) -> Self:
        if self.output_mode == "text" and self.sampling_params.detokenize is False:
            raise ValueError("sampling_params.detokenize: found False, allowed with output_mode text: True")
        return self

    @model_validator(mode="after")
    def _scores_are_whole(self) -> Self:
        if self.sampling_params.prompt_logprobs is not None and self.stream:
            found = self.sampling_params.prompt_logprobs
            raise ValueError(f"sampling_params.prompt_logprobs: found {found} with stream: true; {NOT_STREAMED}")
        return self

    @property
    def group(self) -> str | None:
        """The group's name in the body or in the extra arguments; None if there is none."""
        return self.group_id or self.sampling_params.named_group


class AbortRequests(ProtocolModel):
    """The body of an abort: ids of requests."""

    request_ids: Annotated[list[str] | None, Field(description="None, or [] in /abort_requests: all.")] = None


@router.post("/inference/v1/generate")
async def generate(
    body: Annotated[VllmGenerateRequest, body_of(VllmGenerateRequest)], request: Request, job: Job
) -> Response:
    """Returns or streams responses to one prompt, as token ids or text."""
    given = body.request_id or request.headers.get("X-Request-Id") or uuid.uuid4().hex
    key, wanted = f"{PREFIX}{given}", body.sampling_params.logprobs is not None
    call = await open_call(
        job,
        request,
        [body.token_ids],
        body.sampling_params,
        group=body.group,
        names=(given, key),
        logprobs=wanted,
        top=body.sampling_params.logprobs or 0,
        field="token_ids",
        model=body.model,
        score_from=None if body.sampling_params.prompt_logprobs is None else 1,
        prompt_top=body.sampling_params.prompt_logprobs or 0,
    )
    if body.stream:
        return StreamingResponse(_events(job, call, body, key), media_type=SSE, headers=STREAM_HEADERS)
    found = await responses(job, request, call)

    def whole() -> dict[str, Any]:
        choices = encoded(
            {"index": index, **_content(response, body, call), **_ending(response)}
            for index, response in enumerate(found)
        )
        return (
            _envelope(key, body, call, choices)
            | rendering.prompt_logprobs(found[0], call.prompts[0], call, body.sampling_params.prompt_logprobs or 0)
            | {
                "model": body.model or job.model_names[0],
                "created": int(time.time()),
                "usage": rendering.usage(call, sum(len(response.tokens) for response in found)),
            }
        )

    return await answer([call], whole)


async def _events(job: JobContext, call: CompletionCall, body: VllmGenerateRequest, key: str) -> AsyncIterator[bytes]:
    tokens = 0
    try:
        async for piece in pieces(job, call):
            tokens += len(piece.tokens)
            rows = piece.end.routed.rows if piece.end is not None and piece.end.routed is not None else b""
            yield await made(len(rows), partial(_chunk, piece, body, call, key))
    except OpenseerError as error:
        error_content = {"message": str(error), "type": "server_error", "param": None, "code": status_of(error)}
        yield event({"error": error_content})
    else:
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(_envelope(key, body, call, []) | {"usage": rendering.usage(call, tokens)})
    yield b"data: [DONE]\n\n"


def _chunk(piece: Piece, body: VllmGenerateRequest, call: CompletionCall, key: str) -> bytes:
    return event(_envelope(key, body, call, [_piece(piece, body, call)]))


def _envelope(key: str, body: VllmGenerateRequest, call: CompletionCall, choices: Sequence[Any]) -> dict[str, Any]:
    prompt = {"prompt_token_ids": call.prompts[0]} if body.return_token_ids else {}
    return {"request_id": key, "output_mode": body.output_mode, "choices": choices, **prompt}


def _piece(piece: Piece, body: VllmGenerateRequest, call: CompletionCall) -> dict[str, Any]:
    content = _content(piece, body, call)
    return {"index": piece.index, **content, **(_ending(piece.end) if piece.end is not None else {})}


def _content(scored: FinishedResponse | Piece, body: VllmGenerateRequest, call: CompletionCall) -> dict[str, Any]:
    content: dict[str, Any] = {"token_ids": list(scored.tokens)}
    wanted = body.sampling_params.logprobs is not None
    if body.output_mode == "text":
        return content | {"text": scored.text} | ({"logprobs": rendering.contents(scored, call)} if wanted else {})
    if wanted:
        places = rendering.for_each(scored.logprobs, scored.ranked)
        scores = zip(scored.tokens, scored.logprobs, places, strict=False)
        top = body.sampling_params.logprobs or 0
        entries = [rendering.entries_of(token, value, place, top) for token, value, place in scores]
        # In vLLM's form the token itself counts as one of the `top` tokens.
        content["logprobs"] = {"content": [of[0] | {"top_logprobs": of[: max(top, 1)]} for of in entries]}
    return content


def _ending(response: FinishedResponse) -> dict[str, Any]:
    return {
        "finish_reason": response.finish,
        "stop_reason": response.stop_reason,
        "weight_versions": response.versions,
        **rendering.routed_experts(response),
    }


@router.post("/inference/v1/abort_requests")
async def abort_some(body: AbortRequests, job: Job) -> dict[str, Any]:
    """Aborts requests by their ids; the calls that wait for them return the partial tokens."""
    if body.request_ids is None:
        raise InputError("request_ids: missing")
    return {"status": "aborted", "aborted": await live_of(job).cancel_named(body.request_ids)}


@router.post("/abort_requests")
async def abort(body: AbortRequests, job: Job) -> dict[str, Any]:
    """Aborts requests by their ids; without ids, all requests of the compatible routes."""
    live = live_of(job)
    count = await (live.cancel_named(body.request_ids) if body.request_ids else live.cancel_all())
    return {"status": "aborted", "aborted": count}
