"""Which responses form a group, and how a group is put to the store or grown there."""

import re
from dataclasses import dataclass, field, replace

from openseer_api.compat.members import Member
from openseer_api.jobs import JobContext
from openseer_core.group import GroupSpec, GroupView
from openseer_core.ids import GroupId
from openseer_core.schedule import TIERS
from openseer_core.wire import MAX_GROUP_SIZE

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
    job: JobContext, gid: GroupId, version: str, ordinal: int, members: list[Member], now: float
) -> GroupSpec:
    """A group as it is submitted, with the members that are there. `now`: seconds of the store's clock."""
    first, size, tier = members[0], len(members), TIERS["normal"]
    view = GroupView(gid, 0, ordinal, size, first.max_tokens, now, tier=tier)
    return GroupSpec(
        id=gid,
        version=version,
        ordinal=ordinal,
        prompt=first.prompt,
        max_tokens=first.max_tokens,
        ranks=(job.policy.rank(0),) * size,
        lanes=job.lanes.bind(ordinal, size),
        priority=job.policy.priority(view),
        enqueued_at=now,
        sampling=first.sampling,
        metadata='{"metadata": {}}',
        tier=tier,
        seeds=tuple(one.seed for one in members),
    )


def grown_spec(job: JobContext, spec: GroupSpec, members: list[Member]) -> GroupSpec:
    """The group with these members more."""
    count = len(members)
    return replace(
        spec,
        ranks=spec.ranks + (job.policy.rank(0),) * count,
        lanes=spec.lanes + job.lanes.bind(spec.ordinal, count),
        seeds=spec.seeds + tuple(one.seed for one in members),
    )
