"""Groups of live requests: the rules by which requests join a group, and the specs to submit or grow one."""

import re
from dataclasses import dataclass, field

from openseer_api.compat.live.live_request import LiveRequest
from openseer_api.job.context import JobContext
from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import group_metadata
from openseer_core.queue.policy import TIERS
from openseer_core.wire.batches import MAX_GROUP_SIZE

JOIN_SECONDS = 30.0
"""Time, in seconds, for which a group without a name takes further requests after its first one."""
RECOGNISED_REQUESTS = 256
"""Limit of requests in a group without a name."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@-]")
_MOST_CHARACTERS = 160


@dataclass(slots=True, eq=False)
class LiveGroup:
    """A group that may still grow. `born`: monotonic time of its first request; `named`: a caller gave its name;
    `lone`: it has one request, which is not yet counted as grouped."""

    spec: GroupSpec
    born: float
    named: bool
    lone: bool = False

    def takes(self, now: float, count: int) -> bool:
        """Whether the group may take `count` more requests at monotonic time `now`."""
        if self.named:
            return self.spec.size + count <= MAX_GROUP_SIZE
        return now - self.born <= JOIN_SECONDS and self.spec.size + count <= RECOGNISED_REQUESTS


@dataclass(slots=True)
class Names:
    """Chooses unique names for a batch's groups. `taken`: names in use."""

    taken: set[str] = field(default_factory=set[str])

    def fresh(self, asked: str) -> str:
        """Returns an unused name: `asked`, with a number if that name is in use;
        live-1 and so on if `asked` is empty."""
        base = _NOT_IN_NAMES.sub("-", asked)[:_MOST_CHARACTERS] if asked else "live"
        if not base[0].isalnum():
            base = f"g{base}"
        name, number = base if asked else f"{base}-1", 1
        while name in self.taken:
            number += 1
            name = f"{base}-{number}"
        self.taken.add(name)
        return name


def first_spec(
    job: JobContext, gid: GroupId, version: str, ordinals: tuple[int, int], requests: list[LiveRequest], now: float
) -> GroupSpec:
    """Returns the spec of a new group with its first requests.

    `ordinals`: those of the batch, and of the group in the batch. `now`: seconds of the store's clock.
    """
    first = requests[0]
    return job.placement.group(
        gid,
        version,
        ordinals[1],
        first.prompt,
        first.max_tokens,
        len(requests),
        now,
        sampling=first.sampling,
        metadata=group_metadata({}),
        tier=TIERS["normal"],
        batch_ordinal=ordinals[0],
        seeds=tuple(live_request.seed for live_request in requests),
    )


def grown_spec(job: JobContext, spec: GroupSpec, requests: list[LiveRequest]) -> GroupSpec:
    """Returns the group's spec with these requests added."""
    return job.placement.grown(spec, tuple(live_request.seed for live_request in requests))
