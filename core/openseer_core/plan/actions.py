"""The operator's actions on a job's objects: the output of `plan`. Each is idempotent."""

from dataclasses import dataclass

KV_POOL_OBJECT = "kvPool"
"""Key of the KV pool's pod among the shared objects."""
ROWS_OBJECT = "rows"
"""Key of the pod that serves rows of routed experts, among the shared objects."""


@dataclass(frozen=True, slots=True)
class ApplyShared:
    """Creates or corrects a shared object."""

    key: str


@dataclass(frozen=True, slots=True)
class DeleteStore:
    """Deletes the managed Redis and its volume: the results contain all its data."""


@dataclass(frozen=True, slots=True)
class ScaleStore:
    """Starts (1) or stops (0) the managed Redis; its volume stays."""

    replicas: int


@dataclass(frozen=True, slots=True)
class InspectStore:
    """Reads from Kubernetes why the managed Redis has no pod."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Creates one pod of a component: `index` None is the driver. `avoid`: nodes that it must not run on."""

    index: int | None
    rank: int
    attempt: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Asks a pod to end: its worker gives back its requests and exits within its grace period.

    `force`: at once, without waiting for its node. That is safe, because the fences refuse later writes of the pod.
    """

    name: str
    uid: str
    reason: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class EndSidecars:
    """Ends the sidecars in a pod whose own process has ended; the pod stays, for its log."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """Annotates a pod for node autoscalers: whether evicting it now would lose work."""

    name: str
    uid: str
    busy: bool


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Delays the job's deletion until its keys are deleted from a store that openseer does not manage."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Allows the deletion of the job."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Deletes the job's keys from its store."""


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Deletes the finished job after its time to live."""


@dataclass(frozen=True, slots=True)
class Announce:
    """An event for users on the job, and also on `node` if one is named."""

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
