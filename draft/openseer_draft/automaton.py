"""A suffix automaton over a group's prompt and responses, with exact counts and the most frequent next token.

Blumer et al., "The smallest automaton recognizing the subwords of a text" (1985), extended online to several texts. A
state represents all substrings that end at the same positions; its suffix link leads to their longest suffix that also
ends at other positions. So the state at the end of a text has the text's longest match, and a step reads no earlier
token again.
"""

import numpy as np

from openseer_draft.arena import (
    BUCKET_NEXT,
    COUNT,
    EDGES,
    FROM_STATE,
    GOAL,
    LABEL,
    LENGTH,
    LINK,
    MANY,
    OWNER,
    ROOT,
    SIBLING,
    TARGET,
    TOKEN,
    bucket_of,
    enter,
    has_room,
    take_edge,
    take_state,
    unlink,
)
from openseer_draft.compiled import compiled

COUNTED_SUFFIXES = 64
"""Limit of suffixes whose count one token raises, longest first. A run of n equal tokens has n suffixes; without this
limit each token of a run would cost more than the token before. Other text is far below the limit."""


@compiled
def find(arena, state, token):
    """Returns the edge of `state` with `token` in the hash table, or 0."""
    edges = arena.edges
    edge = arena.buckets[bucket_of(arena, state, token)]
    while edge != 0 and not (edges[edge, FROM_STATE] == state and edges[edge, LABEL] == token):
        edge = edges[edge, BUCKET_NEXT]
    return edge


@compiled
def target(arena, state, token):
    """Returns the target of the edge of `state` with `token`, or 0."""
    states = arena.states
    if states[state, TARGET] == 0 or states[state, TOKEN] == token:
        return states[state, TARGET]
    if states[state, EDGES] == 0:
        return np.int32(0)
    edge = find(arena, state, token)
    return arena.edges[edge, GOAL] if edge != 0 else np.int32(0)


@compiled
def add_edge(arena, groups, group, state, token, goal):
    """Adds an edge from `state` to `goal`, for a token without an edge there."""
    states, edges = arena.states, arena.edges
    if states[state, TARGET] == 0:
        states[state, TOKEN] = token
        states[state, TARGET] = goal
        return
    edge = take_edge(arena, groups, group)
    edges[edge, FROM_STATE] = state
    edges[edge, LABEL] = token
    edges[edge, GOAL] = goal
    edges[edge, SIBLING] = states[state, EDGES]
    states[state, EDGES] = edge
    enter(arena, edge)


@compiled
def prefer(arena, state, token, goal):
    """Makes an edge in the hash table the state's most frequent edge; the former one replaces it in the table."""
    states, edges = arena.states, arena.edges
    edge = find(arena, state, token)
    unlink(arena, edge)
    edges[edge, LABEL] = states[state, TOKEN]
    edges[edge, GOAL] = states[state, TARGET]
    enter(arena, edge)
    states[state, TOKEN] = token
    states[state, TARGET] = goal


@compiled
def degree(arena, state):
    """Returns the number of edges of `state` in the hash table."""
    count = 0
    edge = arena.states[state, EDGES]
    while edge != 0:
        count += 1
        edge = arena.edges[edge, SIBLING]
    return count


@compiled
def redirect(arena, state, token, old, new):
    """Redirects to `new` those edges of `state` and its suffixes with `token` that lead to `old`."""
    states, edges = arena.states, arena.edges
    while state != 0:
        if states[state, TARGET] != 0 and states[state, TOKEN] == token:
            if states[state, TARGET] != old:
                return
            states[state, TARGET] = new
        else:
            edge = find(arena, state, token)
            if edge == 0 or edges[edge, GOAL] != old:
                return
            edges[edge, GOAL] = new
        state = states[state, LINK]


@compiled
def split(arena, groups, group, whole, state, token):
    """Splits the shorter substrings off `whole`, those that `state` and its suffixes reach by `token`; returns their
    new state."""
    states, edges = arena.states, arena.edges
    part = take_state(arena, groups, group)
    states[part, LENGTH] = states[state, LENGTH] + 1
    states[part, LINK] = states[whole, LINK]
    states[part, COUNT] = states[whole, COUNT]
    states[part, TOKEN] = states[whole, TOKEN]
    states[part, TARGET] = states[whole, TARGET]
    states[part, OWNER] = states[whole, OWNER]
    edge = states[whole, EDGES]
    while edge != 0:
        add_edge(arena, groups, group, part, edges[edge, LABEL], edges[edge, GOAL])
        edge = edges[edge, SIBLING]
    states[whole, LINK] = part
    redirect(arena, state, token, whole, part)
    return part


@compiled
def grow(arena, groups, group, last, token):
    """Returns a new state for the text of `last` followed by `token`; 0 if memory is short."""
    states = arena.states
    missing = 0
    suffix, known = last, np.int32(0)
    while suffix != 0:
        known = target(arena, suffix, token)
        if known != 0:
            break
        missing += 1
        suffix = states[suffix, LINK]
    if not has_room(arena, missing + (degree(arena, known) if suffix != 0 else 0)):
        return np.int32(0)
    fresh = take_state(arena, groups, group)
    states[fresh, LENGTH] = states[last, LENGTH] + 1
    state = last
    while state != suffix:
        add_edge(arena, groups, group, state, token, fresh)
        state = states[state, LINK]
    if suffix == 0:
        states[fresh, LINK] = groups[group, ROOT]
    elif states[known, LENGTH] == states[suffix, LENGTH] + 1:
        states[fresh, LINK] = known
    else:
        states[fresh, LINK] = split(arena, groups, group, known, suffix, token)
    return fresh


@compiled
def mark(arena, state, owner):
    """Counts one more occurrence of a state, in a text of `owner`."""
    states = arena.states
    states[state, COUNT] += 1
    before = states[state, OWNER]
    if before != owner:
        states[state, OWNER] = owner if before == 0 else MANY


@compiled
def count(arena, last, token, fresh, owner):
    """Raises the counts of the suffixes of the text that ends in `fresh`, and updates the most frequent edges there."""
    states = arena.states
    state, before, walked = fresh, last, 0
    mark(arena, state, owner)
    while before != 0 and walked < COUNTED_SUFFIXES:
        shortest = states[before, LENGTH] + 1
        following = states[state, LINK]
        while states[following, LENGTH] >= shortest:
            state = following
            mark(arena, state, owner)
            following = states[state, LINK]
        best = states[before, TARGET]
        if best != state and states[state, COUNT] >= states[best, COUNT]:
            prefer(arena, before, token, state)
        before = states[before, LINK]
        walked += 1


@compiled
def append(arena, groups, group, owner, last, tokens, start, stop):
    """Appends tokens[start:stop] to the text that ends in state `last`; returns (new last state, position reached).

    The position is less than `stop` if memory is short, or if a token is negative: engines mark so a position without a
    known token.
    """
    states = arena.states
    last = np.int32(last)
    for position in range(start, stop):
        token = tokens[position]
        if token < 0:
            return last, position
        following = target(arena, last, token)
        if following == 0:
            following = grow(arena, groups, group, last, token)
        elif states[following, LENGTH] != states[last, LENGTH] + 1:
            if not has_room(arena, degree(arena, following)):
                return last, position
            following = split(arena, groups, group, following, last, token)
        if following == 0:
            return last, position
        count(arena, last, token, following, owner)
        last = following
    return last, stop


@compiled
def follow(arena, last, tokens, start, stop):
    """Follows tokens[start:stop] from state `last` as far as the automaton has this text, without counting it; returns
    (last state, position reached)."""
    states = arena.states
    last = np.int32(last)
    for position in range(start, stop):
        following = target(arena, last, tokens[position])
        if following == 0 or states[following, LENGTH] != states[last, LENGTH] + 1:
            return last, position
        last = following
    return last, stop
