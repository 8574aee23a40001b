"""The states of a request and the events that change them."""

from enum import StrEnum


class State(StrEnum):
    """The state of a request. A request in any state may have tokens."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CARRIED = "carried"


class Event(StrEnum):
    """An event of a request; each event is an entry of the journal."""

    CLAIM = "claim"
    GIVE_BACK = "give_back"
    REAP = "reap"
    COMPLETE = "complete"
    ABORT = "abort"
    FAIL = "fail"
    CANCEL = "cancel"
    CARRY = "carry"
    GO_ON = "go_on"


NOT_FINITE = "scores are not finite: "
"""Prefix of `stop_reason` of a response that failed because the model gave a score that is NaN or infinite: the cause
is damaged weights, not the request."""


class FinishReason(StrEnum):
    """Why a response ended. `stop`: a stop string or token; `length`: maxTokens reached; `context_full`: the largest
    token limit of a worker is reached (the model's context, or the capacity of its KV blocks); `aborted`: by new
    weights or by the job; `cancelled`: the trainer does not need it; `carried_over`: it continues in a later batch;
    `infra_failed`: the request could not be completed.
    """

    STOP = "stop"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    ABORTED = "aborted"
    CANCELLED = "cancelled"
    CARRIED_OVER = "carried_over"
    INFRA_FAILED = "infra_failed"


class Status(StrEnum):
    """Whether a result may be used for training: only `ok` is a complete sample of the model."""

    OK = "ok"
    ABORTED = "aborted"
    INFRA_FAILED = "infra_failed"
    CARRIED_OVER = "carried_over"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.LEASED,
    (State.LEASED, Event.GIVE_BACK): State.QUEUED,
    (State.LEASED, Event.REAP): State.QUEUED,
    (State.LEASED, Event.COMPLETE): State.DONE,
    (State.LEASED, Event.FAIL): State.FAILED,
    (State.QUEUED, Event.FAIL): State.FAILED,
    (State.LEASED, Event.ABORT): State.ABORTED,
    (State.QUEUED, Event.ABORT): State.ABORTED,
    (State.LEASED, Event.CANCEL): State.CANCELLED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.LEASED, Event.CARRY): State.CARRIED,
    (State.QUEUED, Event.CARRY): State.CARRIED,
    (State.DONE, Event.GO_ON): State.QUEUED,
}
"""The state after each event that is possible in a state.

A lease is reaped when its deadline passes, when there is evidence that its worker died, and by a change of the weights
version. In the first two cases the request fails instead if it then has more losses, or more expiries and losses
together, than allowed. A request also fails while it waits, if its lease had expired and the worker's death, reported
later, is one loss too many.
`done` is the end of a turn: after a trainer has appended tokens the request is queued again.
"""

FINAL_STATES = frozenset({State.DONE, State.ABORTED, State.FAILED, State.CANCELLED, State.CARRIED})

ENDINGS: dict[Event, tuple[Status, FinishReason]] = {
    Event.ABORT: (Status.ABORTED, FinishReason.ABORTED),
    Event.CANCEL: (Status.ABORTED, FinishReason.CANCELLED),
    Event.CARRY: (Status.CARRIED_OVER, FinishReason.CARRIED_OVER),
    Event.FAIL: (Status.INFRA_FAILED, FinishReason.INFRA_FAILED),
}
"""Status and reason of a request that ended by an event other than its own completion."""


def after(state: State, event: Event) -> State:
    """The state after `event`. Raises KeyError for an event that is not possible in `state`."""
    return TRANSITIONS[state, event]


def diagram() -> str:
    """TRANSITIONS as a Mermaid state diagram. docs/ARCHITECTURE.md contains it; a test compares the two."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL_STATES]
    return "\n".join(lines)
