"""The quantum: the decision which running responses continue in place and which are given back.

Problem: a worker that runs each request to its end must reserve KV blocks for the longest possible response, or preempt
requests. And a long response stays on the worker that started it, while other workers become idle.

Idea: a request is divided into chunks. A worker reserves KV blocks for one *quantum* of tokens only (quantumTokens, by
default 1024). When a response has used its quantum it is *due*: it gets another quantum here, or it goes back to the
queue with its tokens, and any worker can continue it. The decision gives back a response that is not due only if KV
blocks are missing. The engine does not stop for the decision: a response keeps generating until it is aborted, so a
response that continues costs nothing.

Example: 64 slots, all in use, hysteresis 1024 (one quantum), `move_share` 0.5. A response with 2000 tokens is due, with
score -4000; the best waiting request has score -7000. It leaves only if its score exceeds the best waiting one by more
than 1024 + 0.5 * 2000 = 2024; the difference is 3000, so it leaves. At most max(1, 64 // 8) = 8 responses leave
for better ones in one decision. Later nothing waits, fair share 10, slack 4, and 20 responses run: the surplus is
20 - 10 - 4 = 6, and the 6 due responses with the fewest tokens go to workers with room.

It follows that the engine never preempts, that work moves between workers all the time, and that a response moves only
for a gain larger than the cost of computing its context again. Source: divided rollout of Seer; docs/decisions/0028.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from openseer_core.queue.messages import FleetLoad

YIELD_SHARE = 8
"""One decision moves at most 1/YIELD_SHARE of the slots (at least one response) to better requests or to a faster
worker; later decisions see the queue after these moves."""

MOVE_SHARE = 0.5
"""In addition to the hysteresis, the waiting request's score must be lower by this fraction of the response's tokens,
the cost of recomputing its context (docs/decisions/0028). Workers that share a KV pool use 0 instead."""


@dataclass(frozen=True, slots=True)
class QuantumState:
    """A running request. `score`: the score that it would have if it waited now; `due`: its quantum has ended.
    `blocks`: KV blocks that it needs to continue: the reserved ones, or if it is due those of another quantum.
    """

    key: str
    score: float
    due: bool
    generated: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Room:
    """The capacity of a worker: `slots` concurrent responses, `blocks` KV blocks."""

    slots: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Keys of responses that get another quantum, and keys of responses to give back."""

    go_on: frozenset[str]
    leave: frozenset[str]


def decide(
    states: Iterable[QuantumState],
    room: Room,
    fleet_load: FleetLoad | None,
    *,
    slack: int,
    hysteresis: float,
    divided: bool,
    pace: float = 0.0,
    move_share: float = MOVE_SHARE,
) -> Decision:
    """Which due responses continue and which running ones leave.

    A due response leaves in three cases. The worker is full and a better request waits, by more than `hysteresis` and
    `move_share` of the response's own tokens. Or nothing waits and the worker runs more than its fair share plus the
    smaller of `slack` and its fair share, so that others have room. Or nothing waits and a free worker is much faster
    than `pace`, the tokens per second of a response here. A response that continues needs blocks for its next quantum;
    while the blocks do not suffice, the response with the highest score leaves, due or not, but one always stays.
    `divided` false, or fleet load None: responses leave only because of missing blocks.
    """
    running = sorted(states, key=lambda state: state.score)
    leave: set[str] = set()
    if divided and fleet_load is not None:
        leave = _better_waits(running, room, fleet_load, hysteresis, move_share)
        leave |= _overloaded(running, fleet_load, slack, pace) | _faster_elsewhere(running, room, fleet_load, pace)
    staying = [state for state in running if state.key not in leave]
    needed = sum(state.blocks for state in staying)
    while needed > room.blocks and len(staying) > 1:
        worst = staying.pop()
        needed -= worst.blocks
        leave.add(worst.key)
    return Decision(frozenset(state.key for state in staying if state.due), frozenset(leave))


def _better_waits(
    running: list[QuantumState], room: Room, fleet_load: FleetLoad, hysteresis: float, move_share: float
) -> set[str]:
    full = len(running) >= room.slots or sum(state.blocks for state in running) > room.blocks
    if not full or not fleet_load.waiting:
        return set()
    worse = [
        state.key
        for state in reversed(running)
        if state.due and state.score > fleet_load.best_waiting + hysteresis + move_share * state.generated
    ]
    return set(worse[: min(fleet_load.waiting, max(1, room.slots // YIELD_SHARE))])


def _overloaded(running: list[QuantumState], fleet_load: FleetLoad, slack: int, pace: float) -> set[str]:
    surplus = len(running) - fleet_load.fair_share - min(slack, fleet_load.fair_share)
    if fleet_load.waiting or surplus <= 0 or fleet_load.is_slower_free(pace):
        return set()
    cheapest = sorted((state for state in running if state.due), key=lambda state: state.generated)
    return {state.key for state in cheapest[:surplus]}


def _faster_elsewhere(running: list[QuantumState], room: Room, fleet_load: FleetLoad, pace: float) -> set[str]:
    if fleet_load.waiting or not fleet_load.is_faster_free(pace):
        return set()
    due = [state.key for state in running if state.due]
    return set(due[: max(1, room.slots // YIELD_SHARE)])
