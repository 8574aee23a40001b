"""The decision at the end of a quantum: which responses go on in place, and which are given back.

Nothing is stopped to decide: a response runs on until it is aborted. So going on costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from openseer_core.queue.messages import FleetLoad

YIELD_SHARE = 8
"""At most one in so many slots changes hands at one decision: the rest see the queue as it is afterwards."""

MOVE_SHARE = 0.5
"""By so much of its own tokens something has to be better than a response that yields, where its context is computed
again elsewhere: that costs more the longer it is (docs/decisions/0028)."""


@dataclass(frozen=True, slots=True)
class QuantumState:
    """A running request. `score`: the score it would have if it waited now; `due`: its quantum has ended.

    `blocks`: KV blocks that it needs to go on: reserved for it now, or while it is due those of another quantum.
    """

    key: str
    score: float
    due: bool
    generated: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Room:
    """What the worker has: `slots` responses at once, `blocks` KV blocks."""

    slots: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Decision:
    """Keys that go on for another quantum, and keys to give back."""

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
    """Which due responses go on and which running ones leave.

    A due response leaves when the worker is full and something better waits, by more than `hysteresis` and
    `move_share` of its own tokens; or when nothing waits and the worker runs more than its fair share plus `slack`, or
    than twice its fair share: then others have room for it; or when nothing waits and a worker is free where responses
    grow much faster than here, by `pace` tokens per second. Whoever goes on needs blocks for its next quantum; while
    they do not suffice, the worst-placed responses leave.
    `divided` false, or no load of the fleet known: responses leave only for want of blocks.
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
