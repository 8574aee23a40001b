"""What one step of vLLM produced for a request: its tokens, cut where the response ends, and why it ends."""

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
    """A response in the engine: how many tokens it has, and what may end it.

    `scored`: vLLM gives its log-probabilities; `recorded`: they are wanted, and not only looked at. `given`: the last
    tokens of its prompt, which are scored in place of sampling any; `scores`: records (token_scores), [tokens, items],
    of the prompt so far. `top`: so many of the likeliest tokens are recorded with each.
    `resumed`: it ran before it came to this engine.
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
    """What a step produced for one response, cut where a stop string completes."""
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
    """All tokens of a response that is scored, once its prompt is read; the token that vLLM samples is dropped."""
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
    """Adds what a step says of the scores of its tokens."""
    if state.scored:
        if state.recorded:
            produced.logprobs = _records(output.new_logprobs, state.top)[:count].tobytes()
        elif not (finite := np.isfinite(output.new_logprobs.logprobs[:count, 0])).all():
            produced.unscored = int(finite.argmin())
    elif output.num_nans_in_logits:
        produced.unscored = 0


def _records(found: Any, top: int) -> Any:
    """vLLM's scores of some tokens as records (token_scores): float32 [tokens, items].

    Its first column is the token's own, the next ones are the likeliest; others in the batch may have asked for more.
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
    """How often a request had to give way to others in a step."""
    return sum(event.type.name == "PREEMPTED" for event in output.events)


def _finish(output: Any, state: ResponseState) -> tuple[FinishReason, str]:
    """vLLM's reason → ours."""
    name = output.finish_reason.name
    if name == "STOP":
        reason = output.new_token_ids[-1] if output.stop_reason is None else output.stop_reason
        return FinishReason.STOP, str(reason)
    if name == "LENGTH":
        return FinishReason.LENGTH if state.done >= state.limit else FinishReason.CONTEXT_FULL, ""
    return FinishReason.INFRA_FAILED, f"vLLM ended the request: {name.lower()}"
