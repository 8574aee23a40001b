"""Invariants after any schedule of faults."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from openseer_core.errors import OutputError
from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.messages import Chunk
from openseer_core.queue.states import Event
from openseer_core.tokens import count_items
from openseer_driver.run_lines import ChunkLine
from openseer_worker.scripted.text import drawn_length, scripted_tokens
from tests.chaos.members import End
from tests.chaos.schedule import Fault
from tests.chaos.workload import MAX_TOKENS

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Taken:
    """A result as its reader received it."""

    request: RequestId
    status: str
    tokens: bytes
    chunks: Sequence[Chunk | ChunkLine]


@dataclass
class Verdict:
    """The outcome of a run. `broken`: the breaches by promise. Seconds are of the wall clock."""

    seed: int
    mode: str
    engine: str = "scripted"
    faults: list[str] = field(default_factory=list[str])
    kinds: dict[str, int] = field(default_factory=dict[str, int])
    skipped: list[str] = field(default_factory=list[str])
    kept: str = ""
    """The folder with all logs, if a promise was broken."""
    requests: int = 0
    results: int = 0
    infra_failed: int = 0
    aborted: int = 0
    lost_replies: int = 0
    makespan_seconds: float = 0.0
    recoveries: list[float] = field(default_factory=list[float])
    """Seconds from a worker's death to the reap of its requests, if no fault of the store was near."""
    audit: dict[str, Any] = field(default_factory=dict[str, Any])
    fetched: int = 0
    """Tokens of contexts that workers fetched from the KV pool, summed over the last heartbeats of their boots."""
    broken: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, promise: str, who: str) -> None:
        """Records one breach."""
        self.broken.setdefault(promise, []).append(who)

    def note(self, fault: Fault, why_not: str = "") -> None:
        """Records a fault that was applied, or that could not be applied here."""
        if why_not:
            self.skipped.append(f"{fault}: {why_not}")
        else:
            self.faults.append(str(fault))
            self.kinds[fault.kind] = self.kinds.get(fault.kind, 0) + 1

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON for a results file."""
        shortened = {promise: [len(who), *who[:SHOWN]] for promise, who in self.broken.items()}
        return asdict(self) | {"broken": shortened, "ok": self.ok}

    def lines(self) -> list[str]:
        """The verdict as text."""
        fetched = f", {self.fetched} tokens fetched" if self.fetched else ""
        head = (
            f"{self.mode} seed {self.seed}: {sum(self.kinds.values())} faults {self.kinds}, {self.results} of "
            f"{self.requests} results, {self.infra_failed} infra_failed{fetched}, {self.makespan_seconds:.0f} s: "
            f"{'kept' if self.ok else 'BROKEN'}"
        )
        return [head, *(f"  {name} ({len(who)}): {'; '.join(who[:3])}" for name, who in self.broken.items())]


def scripted_response(request: RequestId) -> bytes:
    """All tokens that the scripted engine generates for a request."""
    group, index = str(request.group), request.index
    return scripted_tokens(group, index, 0, min(drawn_length(group, index, MAX_TOKENS), MAX_TOKENS))


def check_results(
    verdict: Verdict,
    taken: Iterable[Taken],
    expected: set[RequestId],
    whole: Callable[[RequestId], bytes] | None = scripted_response,
) -> None:
    """Checks that each request has exactly one result. `whole`: its expected response; None if that is unknown.

    These runs neither end nor carry requests, so an unfinished request must have lost its workers.
    """
    found = Counter[RequestId]()
    for result in taken:
        found[result.request] += 1
        verdict.infra_failed += result.status == "infra_failed"
        verdict.aborted += result.status == "aborted"
        _check_result(verdict, result, None if whole is None or result.request not in expected else whole)
    verdict.requests, verdict.results = len(expected), len(found)
    for request in sorted(expected - found.keys()):
        verdict.add("lost", str(request))
    for request in sorted(found.keys() - expected):
        verdict.add("nobody asked", str(request))
    for request, count in sorted(found.items()):
        if count > 1:
            verdict.add("doubled", f"{request}: {count} times")


def _check_result(verdict: Verdict, result: Taken, whole: Callable[[RequestId], bytes] | None) -> None:
    if result.status not in ("ok", "infra_failed"):
        verdict.add("ended by nobody", f"{result.request}: {result.status}")
    if whole is None:
        return
    response = whole(result.request)
    if result.tokens != response[: len(result.tokens)]:
        verdict.add("tokens as played", str(result.request))
    if result.status == "ok" and len(result.tokens) != len(response):
        found, length = count_items(result.tokens), count_items(response)
        verdict.add("whole responses", f"{result.request}: {found} of {length} tokens")


def check_failures(verdict: Verdict, taken: Iterable[Taken], dead: set[str], retries: int) -> None:
    """Checks that a request is infra_failed only after it lost more leases than allowed to killed workers.

    `dead`: name#boot of workers that were killed.
    """
    for result in taken:
        if result.status != "infra_failed":
            continue
        reaped = [chunk.worker for chunk in result.chunks if chunk.event == Event.REAP]
        died = sum(worker in dead for worker in reaped)
        if died <= retries:
            verdict.add("false infra_failed", f"{result.request}: {len(reaped)} leases lost, {died} to real deaths")


def check_ends(verdict: Verdict, ends: Iterable[End], *, disk_was_full: bool) -> None:
    """Checks that no process ended by itself, except a driver whose disk was full."""
    for end in ends:
        if not (disk_was_full and end.code == OutputError.exit_code):
            verdict.add("ended by itself", f"{end.name} with code {end.code}: {end.words}")


def request_ids(batch: int, groups: Iterable[str], size: int) -> set[RequestId]:
    """The ids of all requests of the groups."""
    return {RequestId(GroupId(batch, name), index) for name in groups for index in range(size)}
