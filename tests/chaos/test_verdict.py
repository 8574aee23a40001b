"""A run that broke a promise is reported as broken: one planted breach of each kind."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from openseer_core.ids import RequestId
from openseer_core.queue.messages import Chunk
from openseer_worker.scripted.text import drawn_length, scripted_tokens
from tests.chaos.verdict import Taken, Verdict, check_failures, check_results, request_ids
from tests.chaos.workload import MAX_TOKENS, RETRIES

EXPECTED = request_ids(3, ["g0", "g1"], 2)
DEAD = "worker-0#a"


def whole(request: RequestId) -> Taken:
    """The result of the scripted engine for a request."""
    group, index = str(request.group), request.index
    length = min(drawn_length(group, index, MAX_TOKENS), MAX_TOKENS)
    return Taken(request, "ok", scripted_tokens(group, index, 0, length), ())


def lost(times: int) -> list[Chunk]:
    """Leases lost to a dead worker."""
    return [Chunk(DEAD, fence, 0, 0, 0.0, 1.0, "reap") for fence in range(1, times + 1)]


def judged(taken: Iterable[Taken], dead: Iterable[str] = ()) -> set[str]:
    """The promises that these results break."""
    verdict, results = Verdict(1, "batch"), list(taken)
    check_results(verdict, results, EXPECTED)
    check_failures(verdict, results, set(dead), RETRIES)
    return set(verdict.broken)


RESULTS = [whole(request) for request in sorted(EXPECTED)]
FIRST = RESULTS[0]


def test_whole_results_and_results_of_lost_workers_keep_every_promise() -> None:
    failed = replace(FIRST, status="infra_failed", tokens=FIRST.tokens[:4], chunks=lost(RETRIES + 1))
    assert judged(RESULTS) == set()
    assert judged([failed, *RESULTS[1:]], [DEAD]) == set()


@pytest.mark.parametrize(
    ("planted", "promise"),
    [
        (lambda: RESULTS[1:], "lost"),
        (lambda: [*RESULTS, FIRST], "doubled"),
        (lambda: [*RESULTS, whole(RequestId.parse("3/other/0"))], "nobody asked"),
        (lambda: [replace(FIRST, status="aborted"), *RESULTS[1:]], "ended by nobody"),
        (lambda: [replace(FIRST, tokens=FIRST.tokens[:4]), *RESULTS[1:]], "whole responses"),
        (lambda: [replace(FIRST, tokens=bytes(len(FIRST.tokens))), *RESULTS[1:]], "tokens as played"),
        (lambda: [replace(FIRST, status="infra_failed", chunks=lost(RETRIES)), *RESULTS[1:]], "false infra_failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_planted_breach_is_found(planted: Callable[[], list[Taken]], promise: str) -> None:
    assert judged(planted(), [DEAD]) == {promise}
