"""Measures the cost of drafting: openseer's drafter and arctic-inference on the same synthetic responses."""

import time
from collections.abc import Callable

import numpy as np

from support.drafters.arctic import has_arctic, suffix_decoding_cache, suffix_tree
from support.drafters.replay import Arctic, Ours, Peer, Row, Static, StepTime, Tokens, replay
from support.synthetic_groups import synthetic_group

MOST_TOKENS = 8
PROMPT = np.arange(1, 25, dtype=np.int32)
DEPTH = 24
"""vLLM's own default."""
SMALL = 3
"""Tokens of a small delta, about as many as a step adds."""


def measure_costs(*, quick: bool) -> dict[str, dict[str, float]]:
    """The costs per drafter: an append of a group of 16 responses, its memory, and steps of 1 and of 256 requests."""
    responses = synthetic_group(16, 4096 if quick else 16_384, 0)
    measurements: dict[str, dict[str, float]] = {"ours": _ours_appends(responses)}
    if has_arctic():
        measurements["arctic"] = _arctic_appends(responses)
    measurements["ours"] |= _steps(lambda slots, longest: Ours(slots, MOST_TOKENS, longest, StepTime()), quick)
    if has_arctic():
        measurements["arctic"] |= _steps(
            lambda slots, longest: Arctic(Static(MOST_TOKENS), depth=DEPTH, apart=False), quick
        )
        names = measurements["ours"].keys() & measurements["arctic"].keys()
        measurements["arctic / ours"] = {
            name: measurements["arctic"][name] / measurements["ours"][name] for name in sorted(names)
        }
    return measurements


# ---- one group of responses, appended


def _ours_appends(responses: list[Tokens]) -> dict[str, float]:
    tokens = sum(map(len, responses))
    drafter = Ours(1, MOST_TOKENS, 64, None).drafter
    drafter.append("compiles", 0, 0, responses[0][:64].tobytes())
    started = time.perf_counter()
    for index, response in enumerate(responses):
        drafter.append("bulk", index, 0, response.tobytes())
    bulk = time.perf_counter() - started
    memory = drafter.metrics()["draft_bytes"]
    pieces = [
        (index, at, responses[index][at : at + SMALL].tobytes())
        for at in range(0, len(responses[0]), SMALL)
        for index in range(len(responses))
    ]
    started = time.perf_counter()
    for index, at, piece in pieces:
        drafter.append("pieces", index, at, piece)
    return {
        "append whole responses, µs/token": bulk / tokens * 1e6,
        "append 3 tokens at a time, µs/token": (time.perf_counter() - started) / tokens * 1e6,
        "memory, B/token": memory / tokens,
    }


def _arctic_appends(responses: list[Tokens]) -> dict[str, float]:
    """Times of the tree of all responses; memory including the tree of each live request, as in vLLM."""
    tokens = sum(map(len, responses))
    new_tree = suffix_tree()
    tree = new_tree(DEPTH)
    started = time.perf_counter()
    for index, response in enumerate(responses):
        tree.extend_ndarray(index, response)
    bulk = time.perf_counter() - started
    pieces = [
        (index, responses[index][at : at + SMALL])
        for at in range(0, len(responses[0]), SMALL)
        for index in range(len(responses))
    ]
    small = new_tree(DEPTH)
    started = time.perf_counter()
    for index, piece in pieces:
        small.extend_ndarray(index, piece)
    apiece = time.perf_counter() - started
    cache = suffix_decoding_cache()(DEPTH)
    for index, response in enumerate(responses):
        cache.start_request(index, PROMPT)
        cache.add_active_response(index, response)
    trees = [cache._global_tree, *cache._local_trees.values()]
    return {
        "append whole responses, µs/token": bulk / tokens * 1e6,
        "append 3 tokens at a time, µs/token": apiece / tokens * 1e6,
        "memory, B/token": sum(part.estimate_memory() for part in trees) / tokens,
        "memory of the tree of all alone, B/token": tree.estimate_memory() / tokens,
    }


# ---- steps: the tokens of the last one taken in, and the next draft


def _steps(new: Callable[[int, int], Peer], quick: bool) -> dict[str, float]:
    alone = _one_request(new, 300 if quick else 3000)
    many = _many_requests(new, 30 if quick else 200, 512 if quick else 4096)
    return {
        "step of 1 request, mean µs": float(np.mean(alone)) * 1e6,
        "step of 1 request, p99 µs": float(np.percentile(alone, 99)) * 1e6,
        "step of 256 requests, mean ms": float(np.mean(many)) * 1e3,
        "step of 256 requests, median ms": float(np.median(many)) * 1e3,
        "step of 256 requests, p99 ms": float(np.percentile(many, 99)) * 1e3,
    }


def _one_request(new: Callable[[int, int], Peer], steps: int) -> list[float]:
    """A request with 15 siblings."""
    responses = synthetic_group(16, 4 * steps, 1)
    peer = new(1, len(PROMPT) + len(responses[0]))
    for index, response in enumerate(responses[:-1]):
        peer.know(0, index, PROMPT, response)
    replay(peer, [Row.of(0, 15, PROMPT, responses[-1])], 1, StepTime(), steps)
    return peer.clock[1:]


def _many_requests(new: Callable[[int, int], Peer], steps: int, known: int) -> list[float]:
    """16 groups of 16 responses, each with a given number of tokens at the start."""
    longest = known + (MOST_TOKENS + 1) * steps
    peer = new(256, len(PROMPT) + longest)
    rows = [
        Row.of(group, index, PROMPT, response, known)
        for group in range(16)
        for index, response in enumerate(synthetic_group(16, longest, 100 + group))
    ]
    replay(peer, rows, 256, StepTime(), steps)
    return peer.clock[1:]
