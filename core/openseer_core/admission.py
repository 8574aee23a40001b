"""Admission: checks whether prompts and token ids fit the model; `validate`, driver, API and worker share it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openseer_core.errors import InputError
from openseer_core.json_model import INT32_MAX
from openseer_core.manifest.generation import Model, Sampling, Scripted
from openseer_core.token_scores import most_scored

SCRIPTED_VOCABULARY = 2**18
"""Vocabulary of the scripted engine: it does not read tokens, so it accepts the ids of all common models."""

_NAMES = ("context_tokens", "vocabulary", "worker_tokens")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """The limits of one request; None where unknown.

    `context_tokens`: the model's limit of prompt and response together. `vocabulary`: number of rows of the model's
    embedding; token ids are less. `worker_tokens`: tokens of one request that the KV cache of one worker can hold.
    """

    context_tokens: int | None = None
    vocabulary: int | None = None
    worker_tokens: int | None = None

    @property
    def request_tokens(self) -> int | None:
        """Limit of prompt and response together: the smaller one of the model's context and the worker's KV cache."""
        return _least(self.context_tokens, self.worker_tokens)

    @property
    def metrics(self) -> dict[str, int]:
        """The known limits, by their names in a worker's metrics."""
        return {name: value for name, value in zip(_NAMES, self._values(), strict=True) if value is not None}

    @staticmethod
    def of(metrics: Mapping[str, object]) -> "ModelLimits":
        """The limits in a worker's metrics; a missing one is unknown."""
        return ModelLimits(
            *(value if isinstance(value, int) and value > 0 else None for value in map(metrics.get, _NAMES))
        )

    def to_json(self) -> str:
        """The known limits as JSON for another process."""
        return json.dumps(self.metrics)

    @staticmethod
    def from_json(text: str) -> "ModelLimits":
        """The limits that `to_json` wrote."""
        return ModelLimits.of(json.loads(text))

    def else_by(self, other: "ModelLimits") -> "ModelLimits":
        """A copy in which the limits of `other` replace unknown ones."""
        return ModelLimits(
            *(theirs if own is None else own for own, theirs in zip(self._values(), other._values(), strict=True))
        )

    def _values(self) -> tuple[int | None, int | None, int | None]:
        return self.context_tokens, self.vocabulary, self.worker_tokens


def limits_of_all(workers: Iterable[ModelLimits]) -> ModelLimits:
    """The limits of the worker with the highest request limit: each request goes to a worker that it fits."""
    largest = ModelLimits()
    for one in workers:
        if (one.request_tokens or 0) > (largest.request_tokens or 0):
            largest = one.else_by(largest)
        largest = largest.else_by(one)
    return largest


def limits_of_manifest(model: Model) -> ModelLimits:
    """The limits that a manifest states: for the scripted engine all, for vLLM max_model_len if it is a number."""
    if model.engine == "scripted":
        return scripted_limits(model.scripted)
    stated = model.engine_args.get("max_model_len")
    return ModelLimits(context_tokens=stated if isinstance(stated, int) and stated > 0 else None)


def scripted_limits(scripted: Scripted) -> ModelLimits:
    """The limits of the scripted engine, which follow from its settings alone."""
    return ModelLimits(scripted.max_model_len, SCRIPTED_VOCABULARY, scripted.kv_blocks * scripted.block_tokens)


def misfit(
    prompt: Sequence[int],
    sampling: Sampling,
    limits: ModelLimits,
    lengths: Sequence[int] = (),
    *,
    name: str = "prompt_token_ids",
) -> str | None:
    """The reason why a prompt cannot run with this sampling; None if it can. `lengths`: of its responses, in tokens,
    read only with forceLengths; `name`: of the field with the prompt's tokens, for the message."""
    if not prompt:
        return "the prompt has no tokens; give at least one"
    longest = max(lengths, default=0) if sampling.force_lengths else 0
    return (
        bad_token(name, prompt, limits)
        or bad_token("stop_token_ids", sampling.stop_token_ids, limits)
        or overflow(len(prompt), 0, limits, room=1)
        or overflow(len(prompt), longest, limits)
        or _unscorable(len(prompt), sampling)
        or unranked(len(prompt), sampling, limits)
    )


def unranked(prompt: int, sampling: Sampling, limits: ModelLimits) -> str | None:
    """The reason why topLogprobs cannot be recorded for a prompt of `prompt` tokens; None if it can, or is 0."""
    if not sampling.top_logprobs:
        return None
    if sampling.logprobs == "none":
        return "sampling.topLogprobs: needs log-probabilities; set sampling.logprobs to sampled or raw"
    if limits.vocabulary is not None and sampling.top_logprobs > limits.vocabulary:
        return f"sampling.topLogprobs: found {sampling.top_logprobs}, the model has {limits.vocabulary} tokens"
    room = min(sampling.max_tokens, (limits.request_tokens or INT32_MAX) - prompt)
    longest = room if sampling.score_from is None else prompt - sampling.score_from
    if longest > (most := most_scored(sampling.top_logprobs)):
        return (
            f"sampling.topLogprobs: found {sampling.top_logprobs} for up to {longest:,} tokens, allowed with it: "
            f"at most {most:,} tokens; ask for fewer, or set maxTokens"
        )
    return None


def _unscorable(prompt: int, sampling: Sampling) -> str | None:
    """The reason why a prompt of `prompt` tokens cannot be scored; None if it can, or without scoreFrom."""
    start = sampling.score_from
    if start is None:
        return None
    if start >= prompt:
        return f"sampling.scoreFrom: found {start}, allowed with a prompt of {prompt} tokens: 1 to {prompt - 1}"
    if sampling.logprobs == "none":
        return "sampling.scoreFrom: needs log-probabilities; set sampling.logprobs to sampled or raw"
    if sampling.force_lengths:
        return "sampling.scoreFrom: not allowed with forceLengths"
    drawn = sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p
    if sampling.logprobs == "sampled" and drawn != (1, 1, 0, 0):
        return (
            "sampling.scoreFrom: scores are of the model's unmodified distribution; with logprobs sampled set "
            "temperature 1, topP 1, topK 0 and minP 0"
        )
    return None


def overflow(prompt: int, response: int, limits: ModelLimits, room: int = 0) -> str | None:
    """The message that prompt, response and `room` further tokens exceed the limits; None if they fit."""
    most = limits.request_tokens
    if most is None or prompt + response + room <= most:
        return None
    found = f"the prompt's {prompt} tokens" + (f" and the response's {response}" if response else "")
    leave = " leave no room for a response in" if prompt + response <= most else " do not fit"
    holder = "the model's context" if most == limits.context_tokens else "a worker's KV cache"
    remedy = "shorten the prompt" + (" or the response" if response else "")
    if most != limits.context_tokens:
        remedy += ", or enlarge the cache"
    return f"{found}{leave} {holder}, allowed with the response: {most}; {remedy}"


def check_stops(sampling: Sampling, limits: ModelLimits) -> None:
    """Raises InputError if a manifest's stop token is not in the vocabulary, because no prompt could run then."""
    if problem := bad_token("spec.sampling.stopTokenIds", sampling.stop_token_ids, limits):
        raise InputError(problem)


def bad_canary(ids: Sequence[int], limits: ModelLimits) -> str | None:
    """The reason why the model cannot score these tokens as a canary; None if it can."""
    most = limits.request_tokens
    if most is not None and len(ids) >= most:
        return f"canary.token_ids: found {len(ids)} tokens, allowed: at most {most - 1}"
    return bad_token("canary.token_ids", ids, limits)


def bad_token(name: str, ids: Sequence[int], limits: ModelLimits) -> str | None:
    """The message about the first token id outside the vocabulary; None if there is none. `name`: of the field."""
    most = INT32_MAX if limits.vocabulary is None else limits.vocabulary - 1
    if not ids or (min(ids) >= 0 and max(ids) <= most):
        return None
    place = next(place for place, token in enumerate(ids) if not 0 <= token <= most)
    return f"{name}[{place}]: found token {ids[place]}, which is not in the model's vocabulary, allowed: 0 to {most}"


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)
