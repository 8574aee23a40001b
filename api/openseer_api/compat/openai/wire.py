"""What OpenAI's clients send, with vLLM's extra fields."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from openseer_api.compat.live.sampling import SamplingFields


class StreamOptions(BaseModel):
    """What a stream ends with."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class OpenAIRequest(SamplingFields):
    """What completions and chat completions share."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    group_id: str | None = None
    vllm_xargs: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("response_format")
    @classmethod
    def _text_only(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("type", "text") != "text":
            raise ValueError("only text: constrained output could not go on in another worker")
        return value

    @property
    def group(self) -> str | None:
        """The group that the caller names."""
        named = self.group_id or (self.vllm_xargs or {}).get("group_id")
        return None if named is None else str(named)

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(OpenAIRequest):
    """`prompt`: a text, token ids, or several of either."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=1, description="Of the sampled token; others are not recorded.")] | None = (
        None
    )
    echo: Annotated[bool | None, Field(description="Not supported.")] = False
    suffix: str | None = None

    @field_validator("echo", "suffix")
    @classmethod
    def _neither(cls, value: Any) -> Any:
        if value:
            raise ValueError("not supported; a completion holds the response alone")
        return value

    @property
    def prompts(self) -> list[str | list[int]]:
        """A list with one entry a prompt."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        ids = [token for token in prompt if isinstance(token, int)]
        if ids:
            return [ids]
        return [entry for entry in prompt if not isinstance(entry, int)]


class ChatPart(BaseModel):
    """A piece of a message; of text alone."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="ignore")

    role: str
    content: str | list[ChatPart] | None = None

    @property
    def text(self) -> str:
        """Its content."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class ChatRequest(OpenAIRequest):
    """`messages`: rendered by the model's own chat template."""

    messages: list[ChatMessage] = Field(min_length=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=1)
    tools: list[Any] | None = None

    @field_validator("tools")
    @classmethod
    def _no_tools(cls, value: list[Any] | None) -> list[Any] | None:
        if value:
            raise ValueError("not supported; render the prompt yourself and send token ids")
        return value

    @property
    def rendered(self) -> list[dict[str, str]]:
        """Messages as the template gets them."""
        return [{"role": message.role, "content": message.text} for message in self.messages]
