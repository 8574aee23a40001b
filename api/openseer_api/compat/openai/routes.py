"""OpenAI's routes: models, completions and chat completions; responses are returned whole or streamed."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from openseer_api.compat.live.refusals import status_of
from openseer_api.compat.live.serving import (
    CompletionCall,
    Piece,
    answer,
    encode,
    encoded,
    open_call,
    pieces,
    responses,
)
from openseer_api.compat.openai import rendering
from openseer_api.compat.openai.wire import ChatRequest, CompletionRequest, OpenAIRequest
from openseer_api.http.bodies import StrictRoute, body_of
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.errors import OpenseerError
from openseer_core.weights.url import shown_url

router = APIRouter(route_class=StrictRoute, include_in_schema=False)
SSE = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get("/v1/models")
async def models(job: Job) -> dict[str, Any]:
    """Returns the job's model under each of its names, and the adapters.
    An adapter's `root` is the place of its files."""
    limit, model = (await job.limits_of_requests()).request_tokens, job.model_names[0]
    card = {"object": "model", "created": 0, "owned_by": "openseer", "max_model_len": limit}
    own = [{"id": name, **card, "root": model, "parent": None} for name in job.model_names]
    adapters = [
        {
            "id": adapter.name,
            **card,
            "root": adapter.source.path or shown_url(adapter.source.url or ""),
            "parent": model,
        }
        for adapter in (await job.snapshot(fresh=True)).fleet_spec.adapters
    ]
    return {"object": "list", "data": [*own, *adapters]}


@router.post("/v1/completions")
async def completions(
    body: Annotated[CompletionRequest, body_of(CompletionRequest)], request: Request, job: Job
) -> Response:
    """Returns or streams completions of one or several prompts."""
    key = request_key("cmpl", body, request)
    names = [key, *_given(body, request)]
    call = await open_call(
        job,
        request,
        body.prompts,
        body,
        group=body.group,
        names=names,
        logprobs=body.logprobs is not None,
        top=body.logprobs or 0,
        options=body.options,
        model=body.model,
        score_from=body.score_from,
        prompt_top=body.prompt_top,
    )

    begun: dict[int, int] = {}

    def choice(piece: Piece) -> dict[str, Any]:
        return {"choices": [rendering.completion_piece(piece, body, call, begun)]}

    if body.stream:
        return _streamed(job, call, body, (key, "text_completion", model_of(job, body)), choice)
    found = await responses(job, request, call)
    tokens = sum(len(response.tokens) for response in found)

    def whole() -> dict[str, Any]:
        choices = encoded(
            rendering.completion_choice(index, response, body, call) for index, response in enumerate(found)
        )
        return rendering.envelope(key, "text_completion", model_of(job, body), choices) | {
            "usage": rendering.usage(call, tokens)
        }

    return await answer([call], whole)


@router.post("/v1/chat/completions")
async def chat(body: Annotated[ChatRequest, body_of(ChatRequest)], request: Request, job: Job) -> Response:
    """Returns or streams completions of a chat, which the model's own template renders."""
    key = request_key("chatcmpl", body, request)
    names = [key, *_given(body, request)]
    call = await open_call(
        job,
        request,
        [body.messages],
        body,
        group=body.group,
        names=names,
        logprobs=bool(body.logprobs),
        top=body.top_logprobs or 0,
        options=body.options,
        model=body.model,
        score_from=body.score_from,
        prompt_top=body.prompt_top,
    )
    begun: set[int] = set()

    def choice(piece: Piece) -> dict[str, Any]:
        first = piece.index not in begun
        prompt = {"prompt_token_ids": call.prompts[0]} if body.return_token_ids and not begun else {}
        begun.add(piece.index)
        return prompt | {"choices": [rendering.chat_piece(piece, body, call, first=first)]}

    if body.stream:
        return _streamed(job, call, body, (key, "chat.completion.chunk", model_of(job, body)), choice)
    found = await responses(job, request, call)
    tokens = sum(len(response.tokens) for response in found)

    def whole() -> dict[str, Any]:
        choices = encoded(rendering.chat_choice(index, response, body, call) for index, response in enumerate(found))
        prompt = {"prompt_token_ids": call.prompts[0]} if body.return_token_ids else {}
        prompt |= rendering.prompt_logprobs(found[0], call.prompts[0], call, body.prompt_top)
        return (
            rendering.envelope(key, "chat.completion", model_of(job, body), choices)
            | prompt
            | {"usage": rendering.usage(call, tokens)}
        )

    return await answer([call], whole)


def _streamed(
    job: JobContext,
    call: CompletionCall,
    body: OpenAIRequest,
    head: tuple[str, str, str],
    choice: Callable[[Piece], Any],
) -> Response:
    return StreamingResponse(_events(job, call, body, head, choice), media_type=SSE, headers=STREAM_HEADERS)


async def _events(
    job: JobContext,
    call: CompletionCall,
    body: OpenAIRequest,
    head: tuple[str, str, str],
    choice: Callable[[Piece], Any],
) -> AsyncIterator[bytes]:
    """Yields chunks as server-sent events. An error becomes an event, because the status has been sent."""
    tokens = 0
    try:
        async for piece in pieces(job, call):
            tokens += len(piece.tokens)
            yield event(rendering.envelope(*head, []) | choice(piece))
    except OpenseerError as error:
        status = status_of(error)
        yield event({"error": {"message": str(error), "type": "server_error", "param": None, "code": status}})
    else:
        if body.usage_wanted:
            yield event(rendering.envelope(*head, []) | {"usage": rendering.usage(call, tokens)})
    yield b"data: [DONE]\n\n"


def event(content: Any) -> bytes:
    """Encodes one server-sent event."""
    return b"data: %s\n\n" % encode(content)


def request_key(kind: str, body: OpenAIRequest, request: Request) -> str:
    """Returns the id of a response: `kind` and the caller's request id, or a generated one."""
    given = _given(body, request)
    return f"{kind}-{given[0] if given else uuid.uuid4().hex}"


def _given(body: OpenAIRequest, request: Request) -> list[str]:
    """Returns the caller's ids of the request: that of the body, then that of the header field X-Request-Id."""
    return [response for response in (body.request_id, request.headers.get("X-Request-Id")) if response]


def model_of(job: JobContext, body: OpenAIRequest) -> str:
    """Returns the model's name in the body, else its path."""
    return body.model or job.model_names[0]
