"""SGLang's routes `/generate` and `/abort_request`."""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Response as HTTPResponse
from fastapi.responses import StreamingResponse

from openseer_api.compat.live.live_request import FinishedResponse
from openseer_api.compat.live.refusals import status_of
from openseer_api.compat.live.requests import live_of
from openseer_api.compat.live.serving import (
    CompletionCall,
    Piece,
    all_responses,
    answer,
    check_count,
    encoded,
    open_call,
    pieces,
)
from openseer_api.compat.openai.routes import SSE, STREAM_HEADERS, event
from openseer_api.compat.sglang.wire import AbortRequest, SglangGenerateRequest
from openseer_api.http.bodies import StrictRoute, body_of
from openseer_api.http.rendering import made
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.errors import InputError, OpenseerError
from openseer_core.token_scores import Ranked
from openseer_core.tokens import ITEM_BYTES

router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.api_route("/generate", methods=["POST", "PUT"])
async def generate(
    body: Annotated[SglangGenerateRequest, body_of(SglangGenerateRequest)], request: Request, job: Job
) -> HTTPResponse:
    """Returns or streams one response; a list of responses if the prompts are a list, or n is above 1."""
    prompts = body.prompts
    count = len(prompts)
    params, rids, starts, tops = body.params(count), body.rids(count), body.starts(count), body.tops(count)
    check_count(count, sum(draw.count for draw in params))
    calls: list[CompletionCall] = []
    wanted = zip(prompts, params, rids, body.groups(params), body.adapters(count), starts, tops, strict=True)
    for prompt, draw, rid, group, adapter, start, top in wanted:
        try:
            call = await open_call(
                job,
                request,
                [prompt],
                draw,
                group=group,
                names=(rid,),
                logprobs=body.wants_logprobs,
                field="input_ids",
                model=adapter,
                score_from=None if start is None else start + 1,
                top=top,
                prompt_top=0 if start is None else top,
            )
        except InputError as error:
            raise InputError(f"prompt {len(calls)}: {error}" if body.is_batch else str(error)) from None
        calls.append(call)
    if body.stream:
        if len(calls) > 1:
            raise InputError("stream: found several prompts, allowed: one per call")
        return StreamingResponse(_events(job, calls[0], body, rids[0], tops[0]), media_type=SSE, headers=STREAM_HEADERS)
    found = await all_responses(job, request, calls)
    version = (await job.snapshot()).fleet_spec.version

    def whole() -> Any:
        answers = encoded(
            _answer(response, rid, call, body, version, top)
            for call, rid, of, top in zip(calls, rids, found, tops, strict=True)
            for response in of
        )
        return answers if body.is_batch or len(answers) > 1 else answers[0]

    return await answer(calls, whole)


def _answer(
    response: FinishedResponse, rid: str, call: CompletionCall, body: SglangGenerateRequest, version: str, top: int
) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "id": rid,
        "finish_reason": finish_of(response),
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": len(response.tokens),
        "cached_tokens": 0,
        "weight_version": response.version or response.prompt_version or version,
        "weight_versions": response.versions,
    }
    if body.wants_logprobs:
        meta["input_token_logprobs"] = _entries(*_scored(response, call), call, body)
        if call.scores:
            meta["input_weight_version"] = response.prompt_version
        meta["output_token_logprobs"] = _entries(response.tokens, response.logprobs, call, body)
    if top:
        # In SGLang the first requested place has no log-probability, so it has no likeliest tokens.
        meta["input_top_logprobs"] = [None, *_tops(response.prompt_ranked, call, body)] if call.scores else []
        meta["output_top_logprobs"] = _tops(response.ranked, call, body)
    return {"text": response.text, "output_ids": response.tokens, "meta_info": meta}


def _scored(response: FinishedResponse, call: CompletionCall) -> tuple[list[int], list[float | None]]:
    """Returns the prompt's tokens from the requested place on, and their log-probabilities.
    In SGLang the first is None."""
    known = response.prompt_logprobs
    return ([], []) if known is None else (call.prompts[0][-len(known) - 1 :], [None, *known])


def _entries(
    tokens: Sequence[int], logprobs: Sequence[float | None], call: CompletionCall, body: SglangGenerateRequest
) -> list[list[Any]]:
    pairs = zip(tokens, logprobs, strict=False)
    return [[value, token, _word(token, call, body)] for token, value in pairs]


def _tops(places: Sequence[Ranked], call: CompletionCall, body: SglangGenerateRequest) -> list[list[list[Any]]]:
    return [[[value, token, _word(token, call, body)] for token, value in place.likeliest] for place in places]


def finish_of(response: FinishedResponse) -> dict[str, Any]:
    """Returns the finish reason in SGLang's form."""
    if response.finish == "stop":
        return {"type": "stop", "matched": response.stop}
    if response.finish == "length":
        return {"type": "length", "length": len(response.tokens)}
    return {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}


def _word(token: int, call: CompletionCall, body: SglangGenerateRequest) -> str | None:
    return call.word(token) if body.return_text_in_logprobs else None


async def _events(
    job: JobContext, call: CompletionCall, body: SglangGenerateRequest, rid: str, top: int
) -> AsyncIterator[bytes]:
    """Yields server-sent events in SGLang's form: each contains the whole response so far."""
    version = (await job.snapshot()).fleet_spec.version
    so_far = [FinishedResponse([], [], "", None, "", []) for _ in call.requests]
    try:
        async for piece in pieces(job, call):
            response = so_far[piece.index] = _longer(so_far[piece.index], piece)
            content = partial(_answer, response, rid, call, body, version, top)
            number = piece.index if len(so_far) > 1 else None
            scores = 2 * ITEM_BYTES * len(response.tokens) * (1 + top)
            yield await made(scores, partial(_event, content, number, ended=piece.end is not None))
    except OpenseerError as error:
        yield event({"error": {"message": str(error), "type": "server_error", "code": status_of(error)}})
    yield b"data: [DONE]\n\n"


def _event(make: Callable[[], dict[str, Any]], number: int | None, *, ended: bool) -> bytes:
    content = make()
    if not ended:
        content["meta_info"]["finish_reason"] = None
    return event(content | ({"index": number} if number is not None else {}))


def _longer(before: FinishedResponse, piece: Piece) -> FinishedResponse:
    if piece.end is not None:
        return piece.end
    return FinishedResponse(
        before.tokens + piece.tokens,
        before.logprobs + piece.logprobs,
        "",
        None,
        before.text + piece.text,
        [],
        ranked=before.ranked + piece.ranked,
    )


@router.post("/abort_request")
async def abort(body: AbortRequest, job: Job) -> HTTPResponse:
    """Aborts one request, or all; the calls that wait for them return the partial tokens."""
    live = live_of(job)
    if body.abort_all:
        await live.cancel_all()
    elif body.rid:
        await live.cancel_named([body.rid])
    return HTTPResponse(status_code=200)
