"""What the operator may do to a job's objects: the output of `plan`. Each is idempotent."""

from dataclasses import dataclass

KV_POOL_OBJECT = "kvPool"
"""Key of the KV pool that is a pod, among the shared objects."""
ROWS_OBJECT = "rows"
"""Key of the pod that gives rows of routed experts, likewise."""


@dataclass(frozen=True, slots=True)
class ApplyShared:
    """Makes a shared object what it should be."""

    key: str


@dataclass(frozen=True, slots=True)
class DeleteStore:
    """Deletes the managed Redis and its volume: all its data is in the results."""


@dataclass(frozen=True, slots=True)
class ScaleStore:
    """Starts (1) or stops (0) the managed Redis; its volume stays."""

    replicas: int


@dataclass(frozen=True, slots=True)
class InspectStore:
    """Asks Kubernetes why the managed Redis has no pod."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Makes one pod of a component: `index` None is the driver. `avoid`: nodes that it must not land on."""

    index: int | None
    rank: int
    attempt: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Asks a pod to end: its worker gives back what it runs and leaves, within its grace period.

    `force`: at once, without waiting for its node. That is safe: what such a pod still writes is fenced off.
    """

    name: str
    uid: str
    reason: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class EndSidecars:
    """Ends what else runs in a pod whose own process is over; the pod stays, for its log."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """Tells node autoscalers whether evicting the pod now would cost work."""

    name: str
    uid: str
    busy: bool


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Holds the job's deletion until its keys are gone from a store that is not ours."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Allows the job to be deleted."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Deletes the job's keys from its store."""


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Deletes the finished job: its time to live is over."""


@dataclass(frozen=True, slots=True)
class Announce:
    """An event that a person reads on the job, and on the node where one is named."""

    warning: bool
    reason: str
    message: str
    node: str = ""


Action = (
    ApplyShared
    | DeleteStore
    | ScaleStore
    | InspectStore
    | CreatePod
    | DeletePod
    | EndSidecars
    | Stamp
    | AddFinalizer
    | RemoveFinalizer
    | Purge
    | DeleteJob
    | Announce
)
