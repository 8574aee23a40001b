"""The life of a request: its states, the events that move it, and nothing else."""

from enum import StrEnum


class State(StrEnum):
    """Where a request is. Partial tokens may exist in every state."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"


class Event(StrEnum):
    """What happens to a request; each is a line of the journal."""

    CLAIM = "claim"
    GIVE_BACK = "give_back"
    REAP = "reap"
    COMPLETE = "complete"
    ABORT = "abort"
    FAIL = "fail"


class FinishReason(StrEnum):
    """Why a response ended. `length`: maxTokens reached; `context_full`: the model's context is."""

    STOP = "stop"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    ABORTED = "aborted"
    INFRA_FAILED = "infra_failed"


class Status(StrEnum):
    """Whether a result may be trained on: only `ok` is a whole sample of the model."""

    OK = "ok"
    ABORTED = "aborted"
    INFRA_FAILED = "infra_failed"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.LEASED,
    (State.LEASED, Event.GIVE_BACK): State.QUEUED,
    (State.LEASED, Event.REAP): State.QUEUED,
    (State.LEASED, Event.COMPLETE): State.DONE,
    (State.LEASED, Event.FAIL): State.FAILED,
    (State.LEASED, Event.ABORT): State.ABORTED,
    (State.QUEUED, Event.ABORT): State.ABORTED,
}
"""A lease is reaped when its deadline passes; it fails instead when the request has lost too many leases."""

FINAL_STATES = frozenset({State.DONE, State.ABORTED, State.FAILED})


def after(state: State, event: Event) -> State:
    """The state that `event` leads to. Raises KeyError for an event that cannot happen in `state`."""
    return TRANSITIONS[state, event]


def diagram() -> str:
    """The table as a Mermaid state diagram (docs/ARCHITECTURE.md holds it; a test compares the two)."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL_STATES]
    return "\n".join(lines)
