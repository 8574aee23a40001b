"""What one step of vLLM produced for a request: its tokens, cut where the response ends, and why it ends."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_text.stop_strings import StopChecker
from openseer_worker.engine import EngineOutput

_FLOAT32 = np.dtype("<f4")


@dataclass(slots=True)
class ResponseState:
    """A response in the engine: how many tokens it has, and what may end it.

    `scored`: vLLM gives its log-probabilities; `recorded`: they are wanted, and not only looked at. `given`: the last
    tokens of its prompt, which are scored in place of sampling any; `scores`: float32 [tokens] of the prompt so far.
    """

    done: int
    limit: int
    scored: bool
    recorded: bool
    checker: StopChecker | None
    given: list[int] = field(default_factory=list[int])
    scores: list[Any] = field(default_factory=list[Any])


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
        # The first column is the prompt's own token.
        state.scores.append(np.asarray(output.new_prompt_logprobs_tensors.logprobs[:, 0]))
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
    produced.tokens, produced.logprobs = pack_tokens(state.given), scores.astype(_FLOAT32, copy=False).tobytes()
    produced.finish = FinishReason.LENGTH
    return produced


def _score(produced: EngineOutput, output: Any, state: ResponseState, count: int) -> None:
    """Adds what a step says of the scores of its tokens."""
    if state.scored:
        # The first column is the sampled token's.
        scores = output.new_logprobs.logprobs[:count, 0]
        if state.recorded:
            produced.logprobs = scores.astype(_FLOAT32, copy=False).tobytes()
        elif not (finite := np.isfinite(scores)).all():
            produced.unscored = int(finite.argmin())
    elif output.num_nans_in_logits:
        produced.unscored = 0


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
