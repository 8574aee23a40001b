"""What SGLang's clients send to `/generate`, one prompt or a list of them."""

import uuid
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openseer_api.compat.live.sampling import SamplingFields
from openseer_core.errors import InputError

REFUSED = (
    "image_data", "video_data", "audio_data", "input_embeds", "lora_path", "custom_logit_processor",
    "token_ids_logprob", "return_hidden_states", "return_routed_experts", "return_indexer_topk",
    "return_sampling_mask", "session_params", "positional_embed_overrides",
)  # fmt: skip
"""Fields that openseer cannot honour; none, false and empty pass."""

_Entry = TypeVar("_Entry")


class SglangSamplingParams(SamplingFields):
    """SGLang's sampling parameters."""

    custom_params: dict[str, Any] | None = None


class SglangGenerateRequest(BaseModel):
    """A single prompt, or lists: then whatever else is a list has one entry a prompt."""

    model_config = ConfigDict(extra="ignore")

    text: str | list[str] | None = None
    input_ids: list[int] | list[list[int]] | None = None
    sampling_params: SglangSamplingParams | list[SglangSamplingParams] | None = None
    rid: str | list[str] | None = None
    return_logprob: bool | list[bool] | None = None
    logprob_start_len: int | list[int] | None = None
    top_logprobs_num: int | list[int] | None = None
    return_text_in_logprobs: bool = False
    stream: bool = False
    group_id: str | list[str] | None = None
    refused: list[str] = Field(default_factory=list[str], exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _note_refused(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return fields | {"refused": [name for name in REFUSED if fields.get(name)]}

    @property
    def prompts(self) -> list[str | list[int]]:
        """A list with one entry a prompt. Raises InputError."""
        if (self.text is None) == (self.input_ids is None):
            raise InputError("exactly one of text and input_ids is needed")
        if self.input_ids is not None:
            nested = [prompt for prompt in self.input_ids if not isinstance(prompt, int)]
            return [*nested] if nested else [[token for token in self.input_ids if isinstance(token, int)]]
        return [self.text] if isinstance(self.text, str) else [*(self.text or [])]

    @property
    def is_batch(self) -> bool:
        """Whether the answer is a list."""
        if self.input_ids is not None:
            return any(not isinstance(entry, int) for entry in self.input_ids)
        return isinstance(self.text, list)

    def check(self) -> None:
        """Raises InputError for what would be ignored otherwise."""
        if self.refused:
            raise InputError(f"{self.refused[0]}: not supported; openseer takes and gives token ids only")
        starts = self.logprob_start_len if isinstance(self.logprob_start_len, list) else [self.logprob_start_len]
        tops = self.top_logprobs_num if isinstance(self.top_logprobs_num, list) else [self.top_logprobs_num]
        if self.wants_logprobs and any(start is not None and start >= 0 for start in starts):
            raise InputError("logprob_start_len: log-probabilities are recorded of responses only; leave it at -1")
        if any(tops):
            raise InputError("top_logprobs_num: log-probabilities are recorded of sampled tokens only; leave it at 0")

    @property
    def wants_logprobs(self) -> bool:
        """Whether any entry does; then all get them."""
        return any(self.return_logprob) if isinstance(self.return_logprob, list) else bool(self.return_logprob)

    def params(self, count: int) -> list[SglangSamplingParams]:
        """Sampling parameters of each prompt. Raises InputError."""
        given = self.sampling_params
        return (
            _each("sampling_params", given, count)
            if isinstance(given, list)
            else [given or SglangSamplingParams()] * count
        )

    def rids(self, count: int) -> list[str]:
        """An id for each prompt; one given for a list is a prefix. Raises InputError."""
        if isinstance(self.rid, list):
            return _each("rid", self.rid, count)
        base = self.rid or uuid.uuid4().hex
        return [f"{base}_{index}" for index in range(count)] if self.is_batch else [base]

    def groups(self, params: list[SglangSamplingParams]) -> list[str | None]:
        """The group that the caller names, for each prompt. Raises InputError."""
        if isinstance(self.group_id, list):
            return [*_each("group_id", self.group_id, len(params))]
        named = [(entry.custom_params or {}).get("group_id") for entry in params]
        return [self.group_id or (None if name is None else str(name)) for name in named]


def _each(name: str, given: list[_Entry], count: int) -> list[_Entry]:
    if len(given) != count:
        raise InputError(f"{name}: found {len(given)} entries, needed: one for each of {count} prompts")
    return given


class AbortRequest(BaseModel):
    """Which request to end."""

    model_config = ConfigDict(extra="ignore")

    rid: str | None = ""
    abort_all: bool = False
