"""The quantum: the decision whether a running response continues on its worker or goes back to the queue.

Problem: a worker that runs each request to its end must reserve KV blocks for max_tokens tokens, or preempt requests.
Also, a long response stays on the worker that started it, while other workers become idle.

Idea: a worker reserves KV blocks for one *quantum* of tokens only (quantumTokens, by default 1024). When a response has
used its quantum it is *due*: it gets another quantum here, or it goes back to the queue with its tokens, and any worker
can continue it. This decision gives a response back that is not due only if KV blocks are missing. The engine does not
pause for the decision: it generates until the worker aborts the request, so continuing costs nothing.

Example: 64 slots, all in use, hysteresis 1024 (one quantum), `move_share` 0.5. A response with 2000 tokens is due, with
score -4000; the lowest score of a waiting request is -7000. The response leaves if its score is higher by more than
1024 + 0.5 * 2000 = 2024; the difference is 3000, so it leaves. At most max(1, 64 // 8) = 8 responses leave for better
requests in one decision. Later no request waits, the fair share is 10, the slack 8 (an eighth of the slots),
and 20 responses run: the surplus is 20 - 10 - 8 = 2, and the 2 due responses with the fewest tokens go back to the
queue. Workers with room continue them.

So the engine does not preempt while its responses stay within the margin of their reservations (worker's running.py).
Responses can move at each end of a quantum. A better request displaces a response only for a gain larger than the cost
of computing the context again. Source: divided rollout of Seer; docs/decisions/0028.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from openseer_core.queue.messages import FleetLoad

YIELD_SHARE = 8
"""One decision gives back at most 1/YIELD_SHARE of the slots (at least one response) for better requests, and at most
as many for a faster worker. Later decisions are based on the queue after these moves."""

MOVE_SHARE = 0.5
"""Share of a response's tokens that counts as the cost of computing its context again elsewhere: a waiting request's
score must be lower by the hysteresis plus this share (docs/decisions/0028). Workers with a KV pool use 0."""


@dataclass(frozen=True, slots=True)
class QuantumState:
    """A running request. `score`: the score that it would have if it waited now; `due`: its quantum has ended.
    `blocks`: the KV blocks that are reserved for it; if it is due, the blocks for another quantum.
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
    """Decides which due responses get another quantum and which running responses leave.

    A due response leaves in three cases:
    (1) The worker is full, and the score of a waiting request is lower by more than `hysteresis` + `move_share` × the
        response's own tokens.
    (2) No request waits, and the worker runs more than its fair share plus the smaller of `slack` and its fair share:
        the surplus leaves, so that workers with room can run it. Nothing leaves if even the fastest other free worker
        is slower by messages.FASTER.
    (3) No request waits, and a free worker is more than messages.FASTER times as fast as `pace`, the tokens per second
        of a response here.
    Independently of these, while the blocks do not suffice for all, the response with the highest score leaves, due or
    not; one response always stays. `divided` false, or `fleet_load` None: only missing blocks make a response leave.
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
