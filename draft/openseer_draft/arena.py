"""The memory of all automata of a worker: flat int32 arrays of fixed size; a group is freed in constant time.

The arrays have their full size from the start, and are never copied; the system allocates memory only for the pages
that are written. The states of a freed group are a chain, which is added to the list of dead states. Dead states and
their edges are reclaimed one state at a time when memory is needed, so that no step has to free a whole group.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openseer_draft.compiled import compiled

# Columns of a state (32 bytes). TOKEN and TARGET are its most frequent edge, EDGES is the list of its other edges,
# NEXT is the next state of the group's chain or of the list of dead or free states; 0: none.
LENGTH, LINK, COUNT, TOKEN, TARGET, EDGES, OWNER, NEXT = range(8)
STATE_COLUMNS = 8
# Columns of an edge (20 bytes); a state's most frequent edge is in the state itself.
FROM_STATE, LABEL, GOAL, SIBLING, BUCKET_NEXT = range(5)
# Counters of an arena.
STATES_USED, EDGES_USED, DEAD, FREE_STATE, FREE_EDGE, STATES_FREE, EDGES_FREE, STATES_LIVE, EDGES_LIVE = range(9)
# Columns of a group. CORPUS_SIZE: number of responses with at least one known token.
ROOT, HEAD, CORPUS_SIZE, STATES, EDGES_HELD = range(5)
GROUP_COLUMNS = 5

STATE_BYTES, EDGE_BYTES, BUCKET_BYTES = 32, 20, 4
_STATE_SHARE, _EDGE_SHARE = 0.6, 0.3
"""Shares of the memory for states and edges, measured with text of language models; the rest is the hash table."""

MANY, EARLIER, PROMPT = -3, -2, -1
"""Owners of a state that is not of a single response alone: several texts, earlier batches, the prompt."""


class Arena(NamedTuple):
    """States int32 (states, 8), edges int32 (edges, 5), buckets int32 (a power of two), and counters int64 (9)."""

    states: NDArray[np.int32]
    edges: NDArray[np.int32]
    buckets: NDArray[np.int32]
    counters: NDArray[np.int64]


def new_arena(memory_bytes: int) -> Arena:
    """Returns an empty arena of at most `memory_bytes`, but with at least 1,024 states, edges and buckets."""
    states = max(1024, int(memory_bytes * _STATE_SHARE) // STATE_BYTES)
    edges = max(1024, int(memory_bytes * _EDGE_SHARE) // EDGE_BYTES)
    buckets = 1 << max(10, int(np.log2(max(1, memory_bytes * (1 - _STATE_SHARE - _EDGE_SHARE) / BUCKET_BYTES))))
    counters = np.zeros(9, np.int64)
    counters[STATES_USED] = counters[EDGES_USED] = 1  # index 0 is "none"
    tables = np.zeros((states, STATE_COLUMNS), np.int32), np.zeros((edges, 5), np.int32), np.zeros(buckets, np.int32)
    return Arena(*tables, counters)


def used_bytes(arena: Arena) -> int:
    """Returns the bytes used by live groups."""
    return int(arena.counters[STATES_LIVE]) * STATE_BYTES + int(arena.counters[EDGES_LIVE]) * EDGE_BYTES


@compiled
def bucket_of(arena, state, token):
    """Returns the hash bucket of the edge of `state` with `token`."""
    mixed = (np.uint32(state) * np.uint32(2654435761)) ^ (np.uint32(token) * np.uint32(2246822519))
    mixed ^= mixed >> np.uint32(15)
    return np.int64(mixed & np.uint32(arena.buckets.shape[0] - 1))


@compiled
def unlink(arena, edge):
    """Removes an edge from the hash table."""
    edges, buckets = arena.edges, arena.buckets
    bucket = bucket_of(arena, edges[edge, FROM_STATE], edges[edge, LABEL])
    at = buckets[bucket]
    if at == edge:
        buckets[bucket] = edges[edge, BUCKET_NEXT]
        return
    while edges[at, BUCKET_NEXT] != edge:
        at = edges[at, BUCKET_NEXT]
    edges[at, BUCKET_NEXT] = edges[edge, BUCKET_NEXT]


@compiled
def enter(arena, edge):
    """Adds an edge, whose state and label are set, to the hash table."""
    bucket = bucket_of(arena, arena.edges[edge, FROM_STATE], arena.edges[edge, LABEL])
    arena.edges[edge, BUCKET_NEXT] = arena.buckets[bucket]
    arena.buckets[bucket] = edge


@compiled
def reclaim(arena):
    """Reclaims one dead state and its edges, so that they can be used again."""
    states, edges, counters = arena.states, arena.edges, arena.counters
    state = counters[DEAD]
    counters[DEAD] = states[state, NEXT]
    edge = states[state, EDGES]
    while edge != 0:
        following = edges[edge, SIBLING]
        unlink(arena, edge)
        edges[edge, SIBLING] = counters[FREE_EDGE]
        counters[FREE_EDGE] = edge
        counters[EDGES_FREE] += 1
        edge = following
    states[state, NEXT] = counters[FREE_STATE]
    counters[FREE_STATE] = state
    counters[STATES_FREE] += 1


@compiled
def has_room(arena, edges_needed):
    """Whether two states (the most that one token needs) and `edges_needed` edges are available; reclaims dead states
    if needed."""
    counters = arena.counters
    while True:
        states_left = arena.states.shape[0] - counters[STATES_USED] + counters[STATES_FREE]
        edges_left = arena.edges.shape[0] - counters[EDGES_USED] + counters[EDGES_FREE]
        if states_left >= 2 and edges_left >= edges_needed:
            return True
        if counters[DEAD] == 0:
            return False
        reclaim(arena)


@compiled
def take_state(arena, groups, group):
    """Returns a blank state, added to the chain of its group. Requires `has_room`."""
    states, counters = arena.states, arena.counters
    if counters[FREE_STATE] == 0 and counters[DEAD] != 0:
        reclaim(arena)
    state = counters[FREE_STATE]
    if state != 0:
        counters[FREE_STATE] = states[state, NEXT]
        counters[STATES_FREE] -= 1
    else:
        state = counters[STATES_USED]
        counters[STATES_USED] += 1
    for column in range(STATE_COLUMNS):
        states[state, column] = 0
    states[state, NEXT] = groups[group, HEAD]
    groups[group, HEAD] = state
    groups[group, STATES] += 1
    counters[STATES_LIVE] += 1
    return np.int32(state)


@compiled
def take_edge(arena, groups, group):
    """Returns a reclaimed or new edge. Requires `has_room`."""
    counters = arena.counters
    groups[group, EDGES_HELD] += 1
    counters[EDGES_LIVE] += 1
    edge = counters[FREE_EDGE]
    if edge != 0:
        counters[FREE_EDGE] = arena.edges[edge, SIBLING]
        counters[EDGES_FREE] -= 1
    else:
        edge = counters[EDGES_USED]
        counters[EDGES_USED] += 1
    return np.int32(edge)


@compiled
def clear(groups, group):
    """Clears a row of `groups`."""
    for column in range(GROUP_COLUMNS):
        groups[group, column] = 0


@compiled
def new_group(arena, groups, group):
    """Creates an empty automaton in a row of `groups`; returns False if memory is short."""
    if not has_room(arena, 0):
        return False
    clear(groups, group)
    groups[group, ROOT] = take_state(arena, groups, group)
    return True


@compiled
def free_group(arena, groups, group):
    """Adds all states of a group to the dead states."""
    counters = arena.counters
    root = groups[group, ROOT]  # the first state taken, so the last of the chain
    arena.states[root, NEXT] = counters[DEAD]
    counters[DEAD] = groups[group, HEAD]
    counters[STATES_LIVE] -= groups[group, STATES]
    counters[EDGES_LIVE] -= groups[group, EDGES_HELD]
    clear(groups, group)
