"""Sampling parameters of the protocols as openseer's own; what cannot be continued on another worker is refused."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openseer_core.errors import InputError
from openseer_core.json_model import INT53_MAX
from openseer_core.manifest.job import Sampling
from openseer_core.wire.batches import MAX_GROUP_SIZE

_NOT_CONTINUED = "a response could not go on in another worker with it"
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "presence_penalty": ((0,), _NOT_CONTINUED),
    "frequency_penalty": ((0,), _NOT_CONTINUED),
    "repetition_penalty": ((1,), _NOT_CONTINUED),
    "logit_bias": (({},), _NOT_CONTINUED),
    "logits_processors": (([],), _NOT_CONTINUED),
    "bad_words": (([],), _NOT_CONTINUED),
    "allowed_token_ids": (([],), _NOT_CONTINUED),
    "structured_outputs": (({},), _NOT_CONTINUED),
    "guided_json": ((), _NOT_CONTINUED),
    "guided_regex": ((), _NOT_CONTINUED),
    "json_schema": ((), _NOT_CONTINUED),
    "regex": ((), _NOT_CONTINUED),
    "ebnf": ((), _NOT_CONTINUED),
    "structural_tag": ((), _NOT_CONTINUED),
    "use_beam_search": ((False,), "responses are sampled; a beam cannot be divided over workers"),
    "best_of": ((1,), "every response is given; set n and choose among them"),
    "prompt_logprobs": ((), "log-probabilities are recorded of responses only"),
    "truncate_prompt_tokens": ((), "prompts are taken as they are"),
}
"""Parameters with their neutral values, which pass, and why any other value is refused."""


class SamplingFields(BaseModel):
    """Sampling parameters by the names of OpenAI, vLLM and SGLang. Unset ones are the job's own."""

    model_config = ConfigDict(extra="ignore")

    n: int | None = Field(default=None, ge=1, le=MAX_GROUP_SIZE)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    max_new_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    min_new_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    seed: int | None = None
    sampling_seed: int | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool = False
    no_stop_trim: bool = False
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, Any] | None = None
    logits_processors: Any = None
    bad_words: Any = None
    allowed_token_ids: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    json_schema: Any = None
    regex: Any = None
    ebnf: Any = None
    structural_tag: Any = None
    use_beam_search: Any = None
    best_of: int | None = None
    prompt_logprobs: Any = None
    truncate_prompt_tokens: Any = None

    @property
    def count(self) -> int:
        """Responses wanted of each prompt."""
        return self.n or 1

    @property
    def effective_seed(self) -> int | None:
        """The seed, in the range that openseer takes."""
        seed = self.seed if self.seed is not None else self.sampling_seed
        return None if seed is None else seed % (INT53_MAX + 1)

    @property
    def keeps_stop(self) -> bool:
        """Whether the text holds the stop string that ended it."""
        return self.include_stop_str_in_output or self.no_stop_trim


_FIELDS: dict[str, Callable[[SamplingFields], Any]] = {
    "temperature": lambda fields: fields.temperature,
    "top_p": lambda fields: fields.top_p,
    "top_k": lambda fields: None if fields.top_k is None else max(0, fields.top_k),
    "min_p": lambda fields: fields.min_p,
    "max_tokens": lambda fields: _first(fields.max_completion_tokens, fields.max_tokens, fields.max_new_tokens),
    "min_tokens": lambda fields: _first(fields.min_tokens, fields.min_new_tokens),
    "stop": lambda fields: (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ()) or None,
    "stop_token_ids": lambda fields: tuple(fields.stop_token_ids or ()) or None,
    "ignore_eos": lambda fields: fields.ignore_eos,
}


def sampling_of(own: Sampling, fields: SamplingFields, *, logprobs: bool) -> Sampling:
    """The job's own parameters, overridden by those of a request; without a seed, which belongs to a response.

    `logprobs`: the request wants them. Raises InputError for what is refused or out of range.
    """
    refuse(fields)
    if logprobs and own.logprobs == "none":
        raise InputError("logprobs: this job records none; set spec.sampling.logprobs")
    given = {name: value for name, read in _FIELDS.items() if (value := read(fields)) is not None}
    try:
        return Sampling.model_validate(own.model_dump() | given | {"seed": None})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def refuse(fields: SamplingFields) -> None:
    """Raises InputError for a parameter that openseer does not accept, unless its value is neutral."""
    for name, (neutral, why) in REFUSED.items():
        value = getattr(fields, name)
        if value is not None and value not in neutral:
            raise InputError(f"{name}: found {value!r}, which openseer refuses: {why}")


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
