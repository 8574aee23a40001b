"""Sampling parameters of the protocols as openseer's own, and in which form a response's text is wanted."""

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
    """Of many lists each is checked by itself: in between, other threads go on."""
    return check(value)


Ids = Annotated[list[StrictInt], Field(fail_fast=True), WrapValidator(_step)]
"""Token ids: true, 5.0 and "5" are none. The first wrong one is told, not each of millions."""


class SamplingFields(RefusingModel):
    """Sampling parameters by the names of OpenAI, vLLM and SGLang. Unset ones are the job's own."""

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
        """Responses wanted of each prompt."""
        return self.n or 1

    @property
    def most_tokens(self) -> int | None:
        """Longest response."""
        return _first(self.max_completion_tokens, self.max_tokens, self.max_new_tokens)

    @property
    def least_tokens(self) -> int | None:
        """Shortest response."""
        return _first(self.min_tokens, self.min_new_tokens)

    @property
    def effective_seed(self) -> int | None:
        """The seed, in the range that openseer takes; -1 is none, as in vLLM."""
        seed = self.seed if self.seed is not None else self.sampling_seed
        return None if seed in (None, -1) else seed % (INT53_MAX + 1)

    @property
    def text_form(self) -> TextForm:
        """What of a response its text holds."""
        keep_stop = bool(self.include_stop_str_in_output or self.no_stop_trim)
        return TextForm(special=self.skip_special_tokens is False, keep_stop=keep_stop)

    @property
    def extra_arguments(self) -> tuple[str, dict[str, Any]]:
        """Arguments for a job's own logits processors, and where they stand in the body."""
        return "", {}

    @property
    def named_group(self) -> str | None:
        """The group that they name."""
        name = self.extra_arguments[1].get(GROUP)
        return None if name is None else str(name)

    def check_text(self, reader: Reader | None) -> None:
        """Raises InputError for a form of text that the model's tokenizer cannot give."""
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
"""Where the protocols have several, in the order in which they are read."""


def sampling_of(
    own: Sampling, fields: SamplingFields, *, logprobs: bool, top: int = 0, scored: bool = False
) -> Sampling:
    """The job's own parameters, overridden by those of a request; without a seed, which belongs to a response.

    `logprobs`: the request wants them, and of `top` likeliest tokens too. `scored`: of its prompts, too; then it may
    want no tokens, which is one here.
    Raises InputError for what is refused or out of range.
    """
    if logprobs and own.logprobs == "none":
        raise InputError("logprobs: this job records none; set spec.sampling.logprobs")
    if own.score_from is not None:
        raise InputError("this job scores and samples nothing: send prompts as a batch, or unset scoreFrom")
    given = {name: value for name, read in _FIELDS.items() if (value := read(fields)) is not None}
    if scored and fields.most_tokens == 0:
        given["max_tokens"] = 1
    try:
        sampling = Sampling.model_validate(own.model_dump() | given | {"seed": None, "top_logprobs": top})
    except ValidationError as error:
        field, _, what = first_problem(error).partition(":")
        raise InputError(f"{_as_given(fields, to_snake(field))}:{what}{_scores_alone(given)}") from None
    if "min_tokens" not in given:  # the job's own gives way to a shorter response
        return sampling.model_copy(update={"min_tokens": min(sampling.min_tokens, sampling.max_tokens)})
    check_order(sampling, "min_tokens", "max_tokens")
    return sampling


def _as_given(fields: SamplingFields, name: str) -> str:
    """The name that a request has used for one of openseer's own parameters."""
    others = (other for other in _OTHER_NAMES.get(name, ()) if getattr(fields, other) is not None)
    return next(others, name)


def _scores_alone(given: dict[str, Any]) -> str:
    """How no token is asked for, where that is what is wrong."""
    return "; 0 only where log-probabilities of the prompt are asked for" if given.get("max_tokens") == 0 else ""


def _given(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    """Also an empty list is the request's own word."""
    return None if values is None else tuple(values)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
