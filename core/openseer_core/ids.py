"""Identifiers of groups, requests and workers."""

from dataclasses import dataclass

INITIAL_VERSION = "initial"
"""The weights version of a job's own model; a batch job's version never changes."""

PROBE_INDEX = 0
"""The request of a group that runs first."""

BATCH_JOB_BATCH = 0
"""The only batch of a batch job; the numbers of a trainer's batches begin with 1."""

PARKED_BATCH = -1
"""The batch that contains carried-over groups until a later batch takes them over."""

CARRIED = "~"
"""Separator between the name of a carried group and its original batch; it is not allowed in names."""


@dataclass(frozen=True, slots=True, order=True)
class GroupId:
    """One prompt and its responses. `name` is the user's id of the prompt, unique within its batch."""

    batch: int
    name: str

    def __str__(self) -> str:
        return f"{self.batch}/{self.name}"

    @staticmethod
    def parse(text: str) -> "GroupId":
        batch, name = text.split("/", 1)
        return GroupId(int(batch), name)

    def carried(self, batch: int) -> "GroupId":
        """The id of the group in another batch. It contains the origin, so that it differs from a new group's id.

        A group that an earlier release parked has no origin in its name; its name stays as it is.
        """
        named = CARRIED in self.name or self.batch == PARKED_BATCH
        return GroupId(batch, self.name if named else f"{self.name}{CARRIED}{self.batch}")

    @property
    def origin(self) -> "GroupId | None":
        """The id that a carried group was submitted with; None for a group that was never carried."""
        name, carried, batch = self.name.rpartition(CARRIED)
        return GroupId(int(batch), name) if carried else None


@dataclass(frozen=True, slots=True, order=True)
class RequestId:
    """One response of a group; index 0 is the probe."""

    group: GroupId
    index: int

    def __str__(self) -> str:
        return f"{self.group}/{self.index}"

    @staticmethod
    def parse(text: str) -> "RequestId":
        group, index = text.rsplit("/", 1)
        return RequestId(GroupId.parse(group), int(index))


@dataclass(frozen=True, slots=True, order=True)
class WorkerId:
    """One boot of a worker: the worker's name, which recurs after a restart, and the boot's id, which does not."""

    name: str
    boot: str

    def __str__(self) -> str:
        return f"{self.name}#{self.boot}"

    @staticmethod
    def parse(text: str) -> "WorkerId":
        name, boot = text.split("#", 1)
        return WorkerId(name, boot)


def worker_name(index: int) -> str:
    """The name of the `index`-th worker of a job."""
    return f"worker-{index}"
