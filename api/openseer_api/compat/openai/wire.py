"""Bodies of OpenAI's routes, with vLLM's extra fields."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from openseer_api.compat.live.protocol_model import NOT_STREAMED, RefusingModel, Top
from openseer_api.compat.live.refused_fields import CHAT, COMPLETIONS, MOST_SHOWN, OPENAI, SAMPLING, Refusals
from openseer_api.compat.live.sampling import Ids, SamplingFields
from openseer_core.chat import ChatMessages
from openseer_text.rendering import RenderOptions


class StreamOptions(RefusingModel):
    """Options of a stream."""

    refused: ClassVar[Refusals] = {
        "continuous_usage_stats": ((False,), "counts are sent once, at the end: set include_usage")
    }

    include_usage: bool | None = None


class OpenAIRequest(SamplingFields):
    """Fields that completions and chat completions share."""

    refused: ClassVar[Refusals] = SAMPLING | OPENAI

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    group_id: str | None = None
    vllm_xargs: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    add_special_tokens: bool | None = None
    prompt_logprobs: Top | None = None

    @property
    def score_from(self) -> int | None:
        """Place of a prompt's first token whose log-probability is requested: 1, because the token at 0 has none. None
        if no log-probabilities of prompts are requested."""
        return None if self.prompt_logprobs is None else 1

    @property
    def prompt_top(self) -> int:
        """Number of likeliest tokens that are requested per token of a prompt."""
        return self.prompt_logprobs or 0

    @property
    def group(self) -> str | None:
        """The group's name in the body or in the extra arguments; None if there is none."""
        return self.group_id or self.named_group

    @property
    def extra_arguments(self) -> tuple[str, dict[str, Any]]:
        """The field with the arguments for custom logits processors, by vLLM's name, and the arguments."""
        return "vllm_xargs", self.vllm_xargs or {}

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: found without stream: true; set stream: true, or remove it")
        return self

    @model_validator(mode="after")
    def _scores_are_whole(self) -> Self:
        if self.prompt_logprobs is not None and self.stream:
            raise ValueError(f"prompt_logprobs: found {self.prompt_logprobs} with stream: true; {NOT_STREAMED}")
        return self


class CompletionRequest(OpenAIRequest):
    """The body of completions. `prompt`: a text, token ids, or several of either."""

    refused: ClassVar[Refusals] = OpenAIRequest.refused | COMPLETIONS

    prompt: str | Ids | Annotated[list[str], Field(fail_fast=True)] | Annotated[list[Ids], Field(fail_fast=True)]
    logprobs: Top | None = Field(default=None, description="Likeliest tokens per token.")
    echo: bool | None = None

    @model_validator(mode="after")
    def _echo_is_whole(self) -> Self:
        if self.echo and self.stream:
            raise ValueError(f"echo: found true with stream: true; {NOT_STREAMED}")
        return self

    @property
    def score_from(self) -> int | None:
        """As in OpenAIRequest; also 1 if the prompt is echoed and log-probabilities are requested."""
        return 1 if self.echo and self.logprobs is not None else super().score_from

    @property
    def shown_prompt_top(self) -> int:
        """Number of likeliest tokens in a response's `prompt_logprobs`: that field of the body, else `prompt_top`."""
        return super().prompt_top if self.prompt_logprobs is not None else self.prompt_top

    @property
    def prompt_top(self) -> int:
        """As in OpenAIRequest, but at least `logprobs` if the prompt is echoed."""
        return max(super().prompt_top, (self.logprobs or 0) if self.echo else 0)

    @property
    def options(self) -> RenderOptions:
        """Options with which text prompts are rendered."""
        return RenderOptions(special_tokens=self.add_special_tokens)

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or token ids."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        ids = [token for token in prompt if isinstance(token, int)]
        if ids:
            return [ids]
        return [entry for entry in prompt if not isinstance(entry, int)]


class Rendering(RefusingModel):
    """Fields that control how a text or chat messages become a prompt, by the model's own template."""

    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None

    @property
    def options(self) -> RenderOptions:
        """The fields as options of the renderer."""
        return RenderOptions(
            special_tokens=self.add_special_tokens,
            generation_prompt=self.add_generation_prompt is not False,
            continue_last=self.continue_final_message is True,
            tools=self.tools or None,
            template_values=self.chat_template_kwargs or {},
        )


class ChatRequest(Rendering, OpenAIRequest):
    """The body of chat completions. `messages`: rendered by the model's own chat template."""

    refused: ClassVar[Refusals] = OpenAIRequest.refused | CHAT

    messages: ChatMessages
    logprobs: bool | None = False
    top_logprobs: Top | None = None
    tool_choice: Any = None
    documents: list[dict[str, str]] | None = None
    reasoning_effort: str | None = None

    @model_validator(mode="after")
    def _logprobs_of_top(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"top_logprobs: found {self.top_logprobs} without logprobs: true, which it needs")
        return self

    @model_validator(mode="after")
    def _no_calls(self) -> Self:
        allowed = ("none",) if self.tools else (None, "none", "auto")
        if self.tool_choice not in allowed:
            place = " with tools" if self.tools else ""
            raise ValueError(
                f"tool_choice: found {self.tool_choice!r:.{MOST_SHOWN}}, allowed{place}: none; "
                "calls are not parsed: the prompt contains the tools, and the text contains the whole response"
            )
        return self

    @property
    def options(self) -> RenderOptions:
        """Options with which the messages are rendered."""
        return replace(super().options, documents=self.documents, template_values=self._template_values)

    @property
    def _template_values(self) -> dict[str, Any]:
        """Variables of the template; reasoning_effort sets the same variables as in vLLM."""
        values, effort = self.chat_template_kwargs or {}, self.reasoning_effort
        if effort is None:
            return values
        return {"enable_thinking": effort != "none"} | values | {"reasoning_effort": effort}
