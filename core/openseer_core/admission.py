"""What can be run: one answer for `validate`, driver, API and worker to whether prompts and token ids fit the model."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from openseer_core.errors import InputError
from openseer_core.json_model import INT32_MAX
from openseer_core.manifest.generation import Model, Sampling, Scripted
from openseer_core.token_scores import most_scored

SCRIPTED_VOCABULARY = 2**18
"""Token ids of the scripted engine are below it: it reads no token, so it takes those of all common models."""

_NAMES = ("context_tokens", "vocabulary", "worker_tokens")


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What one request may have; None where it is not known.

    `context_tokens`: prompt and response together, by the model; `vocabulary`: token ids are below it, the number of
    rows of the model's embedding; `worker_tokens`: tokens of one request that the KV cache of one worker holds.
    """

    context_tokens: int | None = None
    vocabulary: int | None = None
    worker_tokens: int | None = None

    @property
    def request_tokens(self) -> int | None:
        """Prompt and response together, by what is smaller: the model's context or the worker's KV cache."""
        return _least(self.context_tokens, self.worker_tokens)

    @property
    def metrics(self) -> dict[str, int]:
        """What is known, by the names that a worker's metrics have it under."""
        return {name: value for name, value in zip(_NAMES, self._values(), strict=True) if value is not None}

    @staticmethod
    def of(metrics: Mapping[str, object]) -> "ModelLimits":
        """From a worker's metrics; what they do not say is not known."""
        return ModelLimits(
            *(value if isinstance(value, int) and value > 0 else None for value in map(metrics.get, _NAMES))
        )

    def to_json(self) -> str:
        """What is known, as one process tells it to another."""
        return json.dumps(self.metrics)

    @staticmethod
    def from_json(text: str) -> "ModelLimits":
        """What `to_json` wrote."""
        return ModelLimits.of(json.loads(text))

    def else_by(self, other: "ModelLimits") -> "ModelLimits":
        """These, and those of `other` where they are not known."""
        return ModelLimits(
            *(theirs if own is None else own for own, theirs in zip(self._values(), other._values(), strict=True))
        )

    def _values(self) -> tuple[int | None, int | None, int | None]:
        return self.context_tokens, self.vocabulary, self.worker_tokens


def limits_of_all(workers: Iterable[ModelLimits]) -> ModelLimits:
    """Of several workers: a request goes to those that it fits, so what the largest takes is what may be."""
    largest = ModelLimits()
    for one in workers:
        if (one.request_tokens or 0) > (largest.request_tokens or 0):
            largest = one.else_by(largest)
        largest = largest.else_by(one)
    return largest


def limits_of_manifest(model: Model) -> ModelLimits:
    """What a manifest alone says: all of the scripted engine, of vLLM a context that is given as a number."""
    if model.engine == "scripted":
        return scripted_limits(model.scripted)
    stated = model.engine_args.get("max_model_len")
    return ModelLimits(context_tokens=stated if isinstance(stated, int) and stated > 0 else None)


def scripted_limits(scripted: Scripted) -> ModelLimits:
    """Those of the scripted engine, which only its settings determine."""
    return ModelLimits(scripted.max_model_len, SCRIPTED_VOCABULARY, scripted.kv_blocks * scripted.block_tokens)


def misfit(
    prompt: Sequence[int],
    sampling: Sampling,
    limits: ModelLimits,
    lengths: Sequence[int] = (),
    *,
    name: str = "prompt_token_ids",
) -> str | None:
    """Why a prompt cannot be run, with that sampling; None when it can. `lengths`: of its responses, where forced.
    `name`: the caller's word for its tokens."""
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
    """Why the likeliest tokens cannot be recorded beside a prompt of so many tokens; None when they can, and when none
    are wanted."""
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
            f"sampling.topLogprobs: found {sampling.top_logprobs} for up to {longest:,} tokens, allowed with so many: "
            f"at most {most:,} tokens; ask for fewer, or set maxTokens"
        )
    return None


def _unscorable(prompt: int, sampling: Sampling) -> str | None:
    """Why a prompt of so many tokens cannot be scored; None when it can, and when its responses are sampled."""
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
    """Why so many tokens of prompt and response, and `room` more of the response, cannot be; None when they can."""
    most = limits.request_tokens
    if most is None or prompt + response + room <= most:
        return None
    found = f"the prompt's {prompt} tokens" + (f" and the response's {response}" if response else "")
    leave = " leave no room for a response in" if prompt + response <= most else " do not fit"
    holder = "the model's context" if most == limits.context_tokens else "a worker's KV cache"
    return f"{found}{leave} {holder}, allowed with the response: {most}"


def check_stops(sampling: Sampling, limits: ModelLimits) -> None:
    """Raises InputError where a manifest's stop tokens are not in the vocabulary: then no prompt could be run."""
    if problem := bad_token("spec.sampling.stopTokenIds", sampling.stop_token_ids, limits):
        raise InputError(problem)


def bad_canary(ids: Sequence[int], limits: ModelLimits) -> str | None:
    """Why the model cannot score these tokens as a canary; None when it can."""
    most = limits.request_tokens
    if most is not None and len(ids) >= most:
        return f"canary.token_ids: found {len(ids)} tokens, allowed: at most {most - 1}"
    return bad_token("canary.token_ids", ids, limits)


def bad_token(name: str, ids: Sequence[int], limits: ModelLimits) -> str | None:
    """The first of these token ids that is not in the vocabulary, in words; None when all are. `name`: of the field."""
    most = INT32_MAX if limits.vocabulary is None else limits.vocabulary - 1
    if not ids or (min(ids) >= 0 and max(ids) <= most):
        return None
    place = next(place for place, token in enumerate(ids) if not 0 <= token <= most)
    return f"{name}[{place}]: found token {ids[place]}, which is not in the model's vocabulary, allowed: 0 to {most}"


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)
