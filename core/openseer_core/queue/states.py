"""The states of a request and the events that change them."""

from enum import StrEnum


class State(StrEnum):
    """The state of a request. Partial tokens may exist in every state."""

    QUEUED = "queued"
    LEASED = "leased"
    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CARRIED = "carried"


class Event(StrEnum):
    """An event of a request; each one is a line of the journal."""

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
"""Prefix of `stop_reason` where a response failed because of its weights and not because of its request."""


class FinishReason(StrEnum):
    """Why a response ended. `length`: maxTokens reached; `context_full`: the model's context is full.
    `aborted`: by new weights or by the job; `cancelled`: the trainer does not need it; `carried_over`: it
    continues in a later batch.
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
"""A lease is reaped when its deadline passes or its worker is known to have died. It fails instead if the request has
lost too many leases; a waiting request fails when its last allowed loss becomes known.
Done is the end of a turn: a request continues after a trainer has appended tokens.
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
    """The table as a Mermaid state diagram (docs/ARCHITECTURE.md holds it; a test compares the two)."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    lines += [f"    {source} --> {target}: {event}" for (source, event), target in TRANSITIONS.items()]
    lines += [f"    {state} --> [*]" for state in State if state in FINAL_STATES]
    return "\n".join(lines)
