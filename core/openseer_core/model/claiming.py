"""The state of one claim in the reference model."""

from collections.abc import Callable
from dataclasses import dataclass, field

from openseer_core.ids import GroupId, RequestId, WorkerId
from openseer_core.model.sorted_set import SortedSet
from openseer_core.model.state import QueuedGroup, blocks_needed
from openseer_core.queue import budgets
from openseer_core.queue.messages import Claim, ClaimQuery

SIBLING_WINDOW = 4
"""Number of first waiting requests of a group among which a claim prefers a request that the worker has cached. The
preferred request's score may be at most one quantum above the score of the first request that fits. Otherwise the
worker would soon give it back for the first one, again and again."""


@dataclass(slots=True)
class Claiming:
    """A running claim: its leases so far, and the blocks that are left. `group`: a function that returns a group by id;
    `lease`: a function that leases one request of a group; `ends`: whether the worker ends requests that fill its
    context."""

    worker: WorkerId
    query: ClaimQuery
    blocks: int
    group: Callable[[str], QueuedGroup]
    lease: Callable[[QueuedGroup, int], Claim]
    claims: list[Claim] = field(default_factory=list[Claim])
    groups: set[GroupId] = field(default_factory=set[GroupId])
    bytes: int = 0
    ends: bool = True

    def claim_suspect(self, suspects: list[RequestId], allowed: int) -> int:
        """Leases the first suspect that fits. Returns the number of leases, 0 or 1."""
        for request in suspects if allowed > 0 and self._may_go_on() else ():
            group = self.group(str(request.group))
            needed = blocks_needed(group, request.index, self.query, ends=self.ends)
            if needed <= self.blocks:
                self.blocks -= needed
                self._take(self.lease(group, request.index))
                return 1
        return 0

    def claim_in(self, lane: str, heads: list[SortedSet], allowed: int) -> tuple[int, int]:
        """Leases the requests with the lowest scores that fit, from several sorted sets of groups (`heads`). Returns
        the remaining allowance, and the number of groups without a request that fits."""
        places, misses = [0] * len(heads), 0
        while allowed > 0 and self._may_go_on():
            fronts = [
                (*front, number)
                for number, (groups, place) in enumerate(zip(heads, places, strict=True))
                if place < budgets.HEAD_WINDOW and (front := groups.at(place))
            ]
            if not fronts:
                break
            _, name, number = min(fronts)
            group = self.group(name)
            index = self._pick(group, lane)
            if index is None:
                places[number] += 1
                misses += 1
                continue
            self.blocks -= blocks_needed(group, index, self.query, ends=self.ends)
            self._take(self.lease(group, index))
            allowed -= 1
        return allowed, misses

    def _pick(self, group: QueuedGroup, lane: str) -> int | None:
        first: tuple[float, int] | None = None
        for score, name in group.waiting[lane].first(SIBLING_WINDOW):
            index = int(name)
            if blocks_needed(group, index, self.query, ends=self.ends) > self.blocks:
                continue
            first = first or (score, index)
            if score > first[0] + self.query.quantum:
                break
            if group.requests[index].holder == str(self.worker):
                return index
        return first[1] if first else None

    def _may_go_on(self) -> bool:
        """Whether the limits of one call allow another lease."""
        return len(self.claims) < budgets.CLAIM_REQUESTS and self.bytes < budgets.CLAIM_BYTES

    def _take(self, claim: Claim) -> None:
        """Adds a lease and its bytes. A prompt's bytes count once per group."""
        if claim.request.group not in self.groups:
            self.bytes += len(claim.prompt)
        self.groups.add(claim.request.group)
        self.bytes += len(claim.tokens)
        self.claims.append(claim)
