"""What one step of vLLM has yielded for a work: its tokens, cut where it ends, and why it ends."""

# vLLM carries few types: what comes from it is Any here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import Any

from openseer_core.queue.states import FinishReason
from openseer_text.stop_strings import StopChecker


@dataclass(slots=True)
class Running:
    """A work in the engine: where its response is, and what may end it."""

    done: int
    limit: int
    log_probabilities: bool
    checker: StopChecker | None


@dataclass(slots=True)
class Yield:
    """What a work got from one step. `goes_on`: vLLM would continue it; `preempted`: how often it had to give way."""

    key: str
    tokens: list[int]
    logprobs: bytes
    goes_on: bool
    preempted: int = 0
    finish: FinishReason | None = None
    stop_reason: str = ""


def read(output: Any, running: Running) -> Yield:
    """What one work got from a step, cut where a stop string completes."""
    tokens = output.new_token_ids
    stopped = running.checker.feed(tokens) if running.checker is not None and tokens else None
    if stopped is not None:
        tokens = tokens[: stopped[0]]
    logprobs = b""
    if running.log_probabilities and tokens:
        # The first column is the sampled token's.
        logprobs = output.new_logprobs.logprobs[: len(tokens), 0].astype("<f4").tobytes()
    running.done += len(tokens)
    part = Yield(output.request_id, tokens, logprobs, goes_on=output.finish_reason is None)
    if output.events:
        part.preempted = sum(event.type.name == "PREEMPTED" for event in output.events)
    if stopped is not None:
        part.finish, part.stop_reason = FinishReason.STOP, stopped[1]
    elif not part.goes_on:
        part.finish, part.stop_reason = _finish(output, running)
    return part


def _finish(output: Any, running: Running) -> tuple[FinishReason, str]:
    """vLLM's reason → ours."""
    name = output.finish_reason.name
    if name == "STOP":
        reason = output.new_token_ids[-1] if output.stop_reason is None else output.stop_reason
        return FinishReason.STOP, str(reason)
    if name == "LENGTH":
        return FinishReason.LENGTH if running.done >= running.limit else FinishReason.CONTEXT_FULL, ""
    return FinishReason.INFRA_FAILED, f"vLLM ended the request: {name.lower()}"
