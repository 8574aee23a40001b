"""Reads vLLM's output of one step for a request: the tokens up to the response's end, and the reason of the end."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_text.stop_strings import StopChecker
from openseer_worker.engine import EngineOutput

_FLOAT32, _INT32 = np.dtype("<f4"), np.dtype("<i4")


@dataclass(slots=True)
class ResponseState:
    """A response in the engine: `done` tokens of at most `limit`, and the `checker` of its stop strings.

    `scored`: vLLM computes its log-probabilities; `recorded`: they are part of the output, not only checked. `given`:
    the last tokens of its prompt, which the engine scores instead of sampling. `scores`: the prompt's records
    (token_scores) so far, [tokens, items]. `top`: number of likeliest tokens recorded per token. `resumed`: the
    response had tokens before this lease.
    """

    done: int
    limit: int
    scored: bool
    recorded: bool
    checker: StopChecker | None
    given: list[int] = field(default_factory=list[int])
    scores: list[Any] = field(default_factory=list[Any])
    top: int = 0
    resumed: bool = False


def read(output: Any, state: ResponseState) -> EngineOutput:
    """Returns the output of a step for one response, cut at the end of a stop string; updates `state`."""
    if state.given:
        return _given(output, state)
    tokens = output.new_token_ids
    stopped = state.checker.feed(tokens) if state.checker is not None and tokens else None
    if stopped is not None:
        tokens = tokens[: stopped[0]]
    state.done += len(tokens)
    produced = EngineOutput(output.request_id, pack_tokens(tokens))
    if tokens:
        _score(produced, output, state, len(tokens))
    if stopped is not None:
        produced.finish, produced.stop_reason = FinishReason.STOP, stopped[1]
    elif output.finish_reason is not None:
        produced.finish, produced.stop_reason = _finish(output, state)
    return produced


def _given(output: Any, state: ResponseState) -> EngineOutput:
    """Returns all given tokens with their scores once the prompt is computed, before that an empty output. Drops the
    token that vLLM samples."""
    produced = EngineOutput(output.request_id)
    if output.new_prompt_logprobs_tensors is not None:
        state.scores.append(_records(output.new_prompt_logprobs_tensors, state.top))
    if output.finish_reason is None:
        return produced
    if output.finish_reason.name not in ("LENGTH", "STOP"):
        produced.finish, produced.stop_reason = _finish(output, state)
        return produced
    count = len(state.given)
    scores = np.concatenate(state.scores)[-count:]
    if len(scores) < count:
        produced.finish = FinishReason.INFRA_FAILED
        produced.stop_reason = f"vLLM scored {len(scores)} of {count} tokens"
        return produced
    produced.tokens, produced.logprobs = pack_tokens(state.given), scores.tobytes()
    produced.finish = FinishReason.LENGTH
    return produced


def _score(produced: EngineOutput, output: Any, state: ResponseState, count: int) -> None:
    """Adds the scores of a step's `count` tokens to `produced`, or the index of the first score that is not finite."""
    if state.scored:
        if state.recorded:
            produced.logprobs = _records(output.new_logprobs, state.top)[:count].tobytes()
        elif not (finite := np.isfinite(output.new_logprobs.logprobs[:count, 0])).all():
            produced.unscored = int(finite.argmin())
    elif output.num_nans_in_logits:
        produced.unscored = 0


def _records(found: Any, top: int) -> Any:
    """Converts vLLM's scores of some tokens to records (token_scores): float32 [tokens, items].

    The first column of `found` is the token's own score; the next columns are the likeliest tokens, at least `top`.
    """
    values = np.asarray(found.logprobs).astype(_FLOAT32, copy=False)
    if not top:
        return values[:, :1]
    ranks = found.selected_token_ranks if hasattr(found, "selected_token_ranks") else found.sampled_token_ranks
    records = np.empty((len(values), 2 + 2 * top), _FLOAT32)
    records[:, 0] = values[:, 0]
    records[:, 1] = np.asarray(ranks).astype(_INT32).view(_FLOAT32)
    records[:, 2::2] = np.asarray(found.logprob_token_ids)[:, 1 : top + 1].astype(_INT32).view(_FLOAT32)
    records[:, 3::2] = values[:, 1 : top + 1]
    return records


def preemptions(output: Any) -> int:
    """Counts the preemptions of a request in a step."""
    return sum(event.type.name == "PREEMPTED" for event in output.events)


def _finish(output: Any, state: ResponseState) -> tuple[FinishReason, str]:
    """Translates vLLM's finish reason; returns ours and the stop reason."""
    name = output.finish_reason.name
    if name == "STOP":
        reason = output.new_token_ids[-1] if output.stop_reason is None else output.stop_reason
        return FinishReason.STOP, str(reason)
    if name == "LENGTH":
        return FinishReason.LENGTH if state.done >= state.limit else FinishReason.CONTEXT_FULL, ""
    return FinishReason.INFRA_FAILED, f"vLLM ended the request: {name.lower()}"
