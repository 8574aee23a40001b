"""The decision at the end of a quantum: which responses go on in place, and which are handed over.

Nothing is stopped to decide: a response runs on until it is told to leave. So going on costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from openseer_core.queue.messages import FleetLoad

YIELD_SHARE = 8
"""At most one in so many slots changes hands at one decision: the rest see the queue as it is afterwards."""


@dataclass(frozen=True, slots=True)
class QuantumState:
    """A running response. `score`: its place if it waited now; `due`: its quantum has ended.

    `blocks`: reserved for it now; `blocks_next`: needed to go on for another quantum (the same while it is not due).
    """

    key: str
    score: float
    due: bool
    generated: int
    blocks: int
    blocks_next: int


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
    held: Iterable[QuantumState], room: Room, pulse: FleetLoad | None, *, slack: int, hysteresis: float, divided: bool
) -> Decision:
    """Which due responses go on and which running ones leave.

    A due response leaves when the worker is full and something better (by more than `hysteresis`) waits, or when
    nothing waits and the worker holds more than its fair share plus `slack`: then others have room for it. Whoever
    goes on needs blocks for its next quantum; while they do not suffice, the worst-placed responses leave.
    `divided` false, or no news of the fleet: responses leave only for want of blocks.
    """
    running = sorted(held, key=lambda one: one.score)
    leave: set[str] = set()
    if divided and pulse is not None:
        leave = _better_waits(running, room, pulse, hysteresis) | _overloaded(running, pulse, slack)
    staying = [one for one in running if one.key not in leave]
    needed = sum(one.blocks_next for one in staying)
    while needed > room.blocks and len(staying) > 1:
        worst = staying.pop()
        needed -= worst.blocks_next
        leave.add(worst.key)
    return Decision(frozenset(one.key for one in staying if one.due), frozenset(leave))


def _better_waits(running: list[QuantumState], room: Room, pulse: FleetLoad, hysteresis: float) -> set[str]:
    full = len(running) >= room.slots or sum(one.blocks_next for one in running) > room.blocks
    if not full or not pulse.waiting:
        return set()
    worse = [one.key for one in reversed(running) if one.due and one.score > pulse.best_waiting + hysteresis]
    return set(worse[: min(pulse.waiting, max(1, room.slots // YIELD_SHARE))])


def _overloaded(running: list[QuantumState], pulse: FleetLoad, slack: int) -> set[str]:
    surplus = len(running) - pulse.fair_share - slack
    if pulse.waiting or surplus <= 0:
        return set()
    cheapest = sorted((one for one in running if one.due), key=lambda one: one.generated)
    return {one.key for one in cheapest[:surplus]}
