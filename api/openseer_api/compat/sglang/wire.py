"""Bodies of SGLang's routes `/generate`, with one prompt or several, and `/abort_request`."""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from openseer_api.compat.live.protocol_model import NOT_STREAMED, ProtocolModel, RefusingModel, Top, Whole
from openseer_api.compat.live.refused_fields import SGLANG_GENERATE, Refusals
from openseer_api.compat.live.sampling import Ids, SamplingFields
from openseer_core.errors import InputError

_Entry = TypeVar("_Entry")


class SglangSamplingParams(SamplingFields):
    """SGLang's sampling parameters."""

    closed: ClassVar[bool] = True

    custom_params: dict[str, Any] | None = None

    @property
    def extra_arguments(self) -> tuple[str, dict[str, Any]]:
        """The field with the arguments for custom logits processors, by SGLang's name, and the arguments."""
        return "sampling_params.custom_params", self.custom_params or {}


class SglangGenerateRequest(RefusingModel):
    """The body of /generate, with one prompt or a list of prompts. A list in another field has one entry per prompt."""

    refused: ClassVar[Refusals] = SGLANG_GENERATE

    text: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    input_ids: Ids | Annotated[list[Ids], Field(fail_fast=True)] | None = None
    sampling_params: SglangSamplingParams | list[SglangSamplingParams] | None = None
    rid: str | list[str] | None = None
    return_logprob: bool | list[bool] | None = None
    logprob_start_len: Whole | list[Whole] | None = None
    top_logprobs_num: Top | list[Top] | None = None
    return_text_in_logprobs: bool = False
    stream: bool = False
    group_id: str | list[str] | None = None
    lora_path: str | list[str | None] | None = None

    @classmethod
    def elsewhere(cls) -> Mapping[str, str]:
        """Returns sampling parameters, which belong in `sampling_params`: name → its place there."""
        return {name: f"sampling_params.{name}" for name in SglangSamplingParams.model_fields.keys() - cls.known()}

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or token ids. Raises InputError unless exactly one of text and input_ids is set."""
        if (self.text is None) == (self.input_ids is None):
            raise InputError("exactly one of text and input_ids is needed")
        if self.input_ids is not None:
            nested = [prompt for prompt in self.input_ids if not isinstance(prompt, int)]
            return [*nested] if nested else [[token for token in self.input_ids if isinstance(token, int)]]
        return [self.text] if isinstance(self.text, str) else [*(self.text or [])]

    @property
    def is_batch(self) -> bool:
        """Whether the prompts are a list, so that the response is one too."""
        if self.input_ids is not None:
            return any(not isinstance(entry, int) for entry in self.input_ids)
        return isinstance(self.text, list)

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are requested for any prompt; then the responses to all prompts have them."""
        return any(self.return_logprob) if isinstance(self.return_logprob, list) else bool(self.return_logprob)

    def tops(self, count: int) -> list[int]:
        """Returns the number of requested likeliest tokens for each prompt.
        Raises InputError, also without return_logprob."""
        given = self.top_logprobs_num
        each = _each("top_logprobs_num", given, count) if isinstance(given, list) else [given or 0] * count
        if any(each) and not self.wants_logprobs:
            raise InputError(f"top_logprobs_num: found {max(each)} without return_logprob: true, which it needs")
        return each

    def starts(self, count: int) -> list[int | None]:
        """Returns for each prompt the place from which its tokens are scored; None if none are. Raises InputError."""
        given = self.logprob_start_len
        each = _each("logprob_start_len", given, count) if isinstance(given, list) else [given] * count
        starts = [start if self.wants_logprobs and start is not None and start >= 0 else None for start in each]
        if self.stream and any(start is not None for start in starts):
            raise InputError(f"logprob_start_len: found {given} with stream: true; {NOT_STREAMED}")
        return starts

    def params(self, count: int) -> list[SglangSamplingParams]:
        """Returns the sampling parameters of each prompt. Raises InputError."""
        given = self.sampling_params
        return (
            _each("sampling_params", given, count)
            if isinstance(given, list)
            else [given or SglangSamplingParams()] * count
        )

    def rids(self, count: int) -> list[str]:
        """Returns an id for each prompt. A single `rid` for a list of prompts is the prefix of their ids.
        Raises InputError."""
        if isinstance(self.rid, list):
            return _each("rid", self.rid, count)
        base = self.rid or uuid.uuid4().hex
        return [f"{base}_{index}" for index in range(count)] if self.is_batch else [base]

    def adapters(self, count: int) -> list[str | None]:
        """Returns the requested adapter's name for each prompt, or None. Raises InputError."""
        given = self.lora_path
        if isinstance(given, list):
            return _each("lora_path", given, count) if given else [None] * count
        return [given or None] * count

    def groups(self, params: list[SglangSamplingParams]) -> list[str | None]:
        """Returns the name of the group for each prompt, or None. Raises InputError."""
        if isinstance(self.group_id, list):
            return [*_each("group_id", self.group_id, len(params))]
        return [self.group_id or entry.named_group for entry in params]


def _each(name: str, given: list[_Entry], count: int) -> list[_Entry]:
    if len(given) != count:
        raise InputError(f"{name}: found {len(given)} entries, needed: one for each of {count} prompts")
    return given


class AbortRequest(ProtocolModel):
    """The body of an abort: the id of a request, or `abort_all`."""

    rid: str | None = ""
    abort_all: bool = False
