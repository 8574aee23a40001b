"""vLLM's routes that convert between text and token ids, and render prompts."""

from typing import Annotated, Any, ClassVar, Self

from fastapi import APIRouter, Request
from pydantic import Field, model_validator

from openseer_api.compat.live.protocol_model import ProtocolModel
from openseer_api.compat.live.refused_fields import CHAT, COMPLETIONS, Refusals
from openseer_api.compat.live.sampling import Ids
from openseer_api.compat.live.serving import Prompt, adapter_of, render_prompts
from openseer_api.compat.openai.routes import model_of, request_key
from openseer_api.compat.openai.wire import ChatRequest, CompletionRequest, OpenAIRequest, Rendering
from openseer_api.compat.vllm.generate import VllmSamplingParams
from openseer_api.http.bodies import StrictRoute, body_of
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_core.admission import bad_token
from openseer_core.chat import ChatMessages
from openseer_core.errors import InputError
from openseer_text.rendering import RenderOptions

router = APIRouter(route_class=StrictRoute, include_in_schema=False)

_OTHERS_NAMES = {"max_new_tokens", "max_completion_tokens", "min_new_tokens", "sampling_seed", "no_stop_trim"}
"""Other protocols' names of sampling parameters, for which vLLM has names of its own."""
_WORDS = "tokens are returned as ids; /detokenize returns their text"


class TokenizeRequest(Rendering):
    """The body of tokenize: exactly one of a text and chat messages."""

    refused: ClassVar[Refusals] = {
        **{name: CHAT[name] for name in ("chat_template", "media_io_kwargs")},
        "prompt_embeds": COMPLETIONS["prompt_embeds"],
        "return_token_strs": ((False,), _WORDS),
    }

    model: str | None = None
    prompt: str | None = None
    messages: ChatMessages | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of prompt and messages is needed")
        return self

    @property
    def text(self) -> Prompt:
        """The prompt, or the chat messages."""
        return self.prompt if self.prompt is not None else self.messages or []


class DetokenizeRequest(ProtocolModel):
    """The body of detokenize. `skip_special_tokens`: whether the text omits special tokens;
    False by default, as in vLLM."""

    model: str | None = None
    tokens: Ids = Field(min_length=1)
    skip_special_tokens: bool = False


@router.post("/tokenize")
async def tokenize(body: Annotated[TokenizeRequest, body_of(TokenizeRequest)], job: Job) -> dict[str, Any]:
    """Returns the token ids of a rendered prompt."""
    await adapter_of(job, body.model)
    (tokens,) = await render_prompts(job, [body.text], body.options)
    limit = (await job.limits_of_requests()).request_tokens
    return {"tokens": tokens, "count": len(tokens), "max_model_len": limit, "token_strs": None}


@router.post("/detokenize")
async def detokenize(body: Annotated[DetokenizeRequest, body_of(DetokenizeRequest)], job: Job) -> dict[str, Any]:
    """Returns the text of token ids, in vLLM's field `prompt` and SGLang's `text`."""
    await adapter_of(job, body.model)
    read = (await job.codec()).read
    if read is None:
        raise InputError("tokens: the scripted engine's tokens have no text")
    if problem := bad_token("tokens", body.tokens, await job.limits_of_requests()):
        raise InputError(problem)
    text = read.text(body.tokens) if body.skip_special_tokens else read.whole(body.tokens)
    return {"prompt": text, "text": text}


@router.post("/v1/completions/render")
async def render_completion(
    body: Annotated[CompletionRequest, body_of(CompletionRequest)], request: Request, job: Job
) -> list[dict[str, Any]]:
    """Converts a body of completions to bodies of /inference/v1/generate, one per prompt."""
    key = request_key("cmpl", body, request)
    rendered = await _rendered(job, body, body.prompts, body.options, logprobs=body.logprobs)
    names = [key] if len(rendered) == 1 else [f"{key}-{number}" for number in range(len(rendered))]
    return [{"request_id": name, **entry} for name, entry in zip(names, rendered, strict=True)]


@router.post("/v1/chat/completions/render")
async def render_chat(body: Annotated[ChatRequest, body_of(ChatRequest)], request: Request, job: Job) -> dict[str, Any]:
    """Converts a body of chat completions to the body of /inference/v1/generate."""
    wanted = (body.top_logprobs or 0) if body.logprobs else None
    (rendered,) = await _rendered(job, body, [body.messages], body.options, logprobs=wanted)
    return {"request_id": request_key("chatcmpl", body, request), **rendered}


async def _rendered(
    job: JobContext, body: OpenAIRequest, prompts: list[Any], options: RenderOptions, *, logprobs: int | None
) -> list[dict[str, Any]]:
    await adapter_of(job, body.model)
    given = body.model_dump(include=set(VllmSamplingParams.model_fields) - _OTHERS_NAMES)
    params: dict[str, Any] = {
        **given,
        "max_tokens": body.most_tokens,
        "min_tokens": body.least_tokens,
        "seed": body.effective_seed,
        "include_stop_str_in_output": body.text_form.keep_stop or None,
        "logprobs": logprobs,
        "prompt_logprobs": None if body.score_from is None else body.prompt_top,
    }
    rest = {
        "sampling_params": {name: value for name, value in params.items() if value is not None},
        "model": model_of(job, body),
        "stream": bool(body.stream),
        "group_id": body.group,
    }
    return [{"token_ids": ids, **rest} for ids in await render_prompts(job, prompts, options)]
