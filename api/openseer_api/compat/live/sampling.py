"""Converts the protocols' sampling parameters to openseer's own, and to the form of a response's text."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictInt, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic.alias_generators import to_snake

from openseer_api.compat.live.extra_arguments import GROUP
from openseer_api.compat.live.protocol_model import WHOLE, RefusingModel, Whole
from openseer_api.compat.live.refused_fields import SAMPLING, Refusals
from openseer_api.job.sampling import check_order
from openseer_core.errors import InputError
from openseer_core.json_model import INT53_MAX
from openseer_core.json_words import first_problem
from openseer_core.manifest.job import Sampling
from openseer_core.wire.batches import MAX_GROUP_SIZE
from openseer_text.reading import Reader
from openseer_text.stop_strings import TextForm


def _step(value: object, check: ValidatorFunctionWrapHandler) -> list[int]:
    """Checks one of many lists in Python code, so that other threads can run between two lists."""
    return check(value)


Ids = Annotated[list[StrictInt], Field(fail_fast=True), WrapValidator(_step)]
"""Token ids; true, 5.0 and "5" are refused. The error names only the first wrong id, because there may be millions."""


class SamplingFields(RefusingModel):
    """Sampling parameters by the names of OpenAI, vLLM and SGLang. An unset one has the job's value."""

    refused: ClassVar[Refusals] = SAMPLING

    n: Annotated[int, Field(ge=1, le=MAX_GROUP_SIZE), WHOLE] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    min_p: float | None = None
    max_tokens: Whole | None = None
    max_new_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    min_tokens: Whole | None = None
    min_new_tokens: Whole | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Ids | None = None
    seed: Whole | None = None
    sampling_seed: Whole | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    no_stop_trim: bool | None = None

    @property
    def count(self) -> int:
        """Number of requested responses per prompt."""
        return self.n or 1

    @property
    def most_tokens(self) -> int | None:
        """Longest response, in tokens; None if unset."""
        return _first(self.max_completion_tokens, self.max_tokens, self.max_new_tokens)

    @property
    def least_tokens(self) -> int | None:
        """Shortest response, in tokens; None if unset."""
        return _first(self.min_tokens, self.min_new_tokens)

    @property
    def effective_seed(self) -> int | None:
        """The seed, reduced to openseer's range; None if it is unset or, as in vLLM, -1."""
        seed = self.seed if self.seed is not None else self.sampling_seed
        return None if seed in (None, -1) else seed % (INT53_MAX + 1)

    @property
    def text_form(self) -> TextForm:
        """The form of a response's text: whether it contains special tokens, and the stop string."""
        keep_stop = bool(self.include_stop_str_in_output or self.no_stop_trim)
        return TextForm(special=self.skip_special_tokens is False, keep_stop=keep_stop)

    @property
    def extra_arguments(self) -> tuple[str, dict[str, Any]]:
        """The name of the field with the arguments for custom logits processors, and the arguments."""
        return "", {}

    @property
    def named_group(self) -> str | None:
        """The name of the group in the extra arguments; None if they contain none."""
        name = self.extra_arguments[1].get(GROUP)
        return None if name is None else str(name)

    def check_text(self, reader: Reader | None) -> None:
        """Raises InputError for a form of text that the model's tokenizer cannot produce."""
        wanted = self.text_form.special and self.spaces_between_special_tokens is False
        if wanted and reader is not None and reader.spaces_special:
            raise InputError(
                "spaces_between_special_tokens: found False, which openseer refuses with skip_special_tokens False: "
                "the model's tokenizer writes them"
            )


_FIELDS: dict[str, Callable[[SamplingFields], Any]] = {
    "temperature": lambda fields: fields.temperature,
    "top_p": lambda fields: fields.top_p,
    "top_k": lambda fields: fields.top_k,
    "min_p": lambda fields: fields.min_p,
    "max_tokens": lambda fields: fields.most_tokens,
    "min_tokens": lambda fields: fields.least_tokens,
    "stop": lambda fields: (fields.stop,) if isinstance(fields.stop, str) else _given(fields.stop),
    "stop_token_ids": lambda fields: _given(fields.stop_token_ids),
    "ignore_eos": lambda fields: fields.ignore_eos,
}
_OTHER_NAMES = {
    "max_tokens": ("max_completion_tokens", "max_tokens", "max_new_tokens"),
    "min_tokens": ("min_tokens", "min_new_tokens"),
}
"""Parameters for which the protocols have several names, in the order of precedence."""


def sampling_of(
    own: Sampling, fields: SamplingFields, *, logprobs: bool, top: int = 0, scored: bool = False
) -> Sampling:
    """Returns the job's own parameters, overridden by those of a request; without the seed, which differs per response.

    `logprobs`: whether log-probabilities are requested; `top`: number of likeliest tokens that are requested per token.
    `scored`: whether log-probabilities of the prompts are requested; then max_tokens may be 0, and is returned as 1.
    Raises InputError for parameters that the job refuses or that are out of range.
    """
    if logprobs and own.logprobs == "none":
        raise InputError("logprobs: this job records none; set spec.sampling.logprobs")
    if own.score_from is not None:
        raise InputError("this job only scores prompts: send them as a batch, or unset scoreFrom")
    given = {name: value for name, read in _FIELDS.items() if (value := read(fields)) is not None}
    if scored and fields.most_tokens == 0:
        given["max_tokens"] = 1
    try:
        sampling = Sampling.model_validate(own.model_dump() | given | {"seed": None, "top_logprobs": top})
    except ValidationError as error:
        field, _, what = first_problem(error).partition(":")
        raise InputError(f"{_as_given(fields, to_snake(field))}:{what}{_scores_alone(given)}") from None
    if "min_tokens" not in given:  # the job's own min_tokens is limited by the request's max_tokens
        return sampling.model_copy(update={"min_tokens": min(sampling.min_tokens, sampling.max_tokens)})
    check_order(sampling, "min_tokens", "max_tokens")
    return sampling


def _as_given(fields: SamplingFields, name: str) -> str:
    """Returns the name that the request uses for one of openseer's parameters."""
    others = (other for other in _OTHER_NAMES.get(name, ()) if getattr(fields, other) is not None)
    return next(others, name)


def _scores_alone(given: dict[str, Any]) -> str:
    """Returns the rule for max_tokens 0, as a part of an error, if the request has max_tokens 0; else ""."""
    return "; 0 only with log-probabilities of the prompt" if given.get("max_tokens") == 0 else ""


def _given(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Returns the values as a tuple; None if unset. An empty list counts as set."""
    return None if values is None else tuple(values)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
