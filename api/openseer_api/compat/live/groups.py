"""Which responses form a group, and how a group is put to the store or grown there."""

import re
from dataclasses import dataclass, field

from openseer_api.compat.live.members import LiveRequest
from openseer_api.job.context import JobContext
from openseer_core.ids import GroupId
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.placement import group_metadata
from openseer_core.queue.policy import TIERS
from openseer_core.wire.batches import MAX_GROUP_SIZE

YOUNG_SECONDS = 30.0
"""So long after its first request does a group without a name take further ones."""
RECOGNISED_MEMBERS = 256
"""Most members of a group without a name."""
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:@-]")
_MOST_CHARACTERS = 160


@dataclass(slots=True, eq=False)
class LiveGroup:
    """A group that still takes members. `lone`: its only member so far, which nobody has counted as grouped."""

    spec: GroupSpec
    born: float
    named: bool
    lone: bool = False

    def takes(self, now: float, count: int) -> bool:
        """Whether it takes so many more."""
        if self.named:
            return self.spec.size + count <= MAX_GROUP_SIZE
        return now - self.born <= YOUNG_SECONDS and self.spec.size + count <= RECOGNISED_MEMBERS


@dataclass(slots=True)
class Names:
    """Names of a batch's groups: the one that was asked for where it is free, else with a number."""

    taken: set[str] = field(default_factory=set[str])

    def fresh(self, asked: str) -> str:
        """A name of its own."""
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
    job: JobContext, gid: GroupId, version: str, ordinal: int, members: list[LiveRequest], now: float
) -> GroupSpec:
    """A group as it is submitted, with the members that are there. `now`: seconds of the store's clock."""
    first = members[0]
    return job.placement.group(
        gid,
        version,
        ordinal,
        first.prompt,
        first.max_tokens,
        len(members),
        now,
        sampling=first.sampling,
        metadata=group_metadata({}),
        tier=TIERS["normal"],
        seeds=tuple(member.seed for member in members),
    )


def grown_spec(job: JobContext, spec: GroupSpec, members: list[LiveRequest]) -> GroupSpec:
    """The group with these members more."""
    return job.placement.grown(spec, tuple(member.seed for member in members))
