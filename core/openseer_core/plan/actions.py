"""The operator's actions on a job's objects: the output of `plan`. Each action is idempotent."""

from dataclasses import dataclass

KV_POOL_OBJECT = "kvPool"
"""Key of the KV pool's StatefulSet among the shared objects."""
ROWS_OBJECT = "rows"
"""Key, among the shared objects, of the Deployment that serves rows of routed experts."""


@dataclass(frozen=True, slots=True)
class ApplyShared:
    """Creates or corrects the shared object with this key."""

    key: str


@dataclass(frozen=True, slots=True)
class DeleteStore:
    """Deletes the managed Redis and its volume, after the results contain all its data."""


@dataclass(frozen=True, slots=True)
class ScaleStore:
    """Starts (1) or stops (0) the managed Redis; its volume stays."""

    replicas: int


@dataclass(frozen=True, slots=True)
class InspectStore:
    """Reads the events that explain why the managed Redis has no pod."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """Creates one pod. `index`: number of its worker, None for the driver; `attempt`: number of the incarnation;
    `avoid`: nodes on which it must not run."""

    index: int | None
    rank: int
    attempt: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Deletes a pod: its worker gives back its requests and exits within its grace period.

    `force`: a forced deletion, which does not wait for the node. It is safe, because fences refuse later writes of the
    pod.
    """

    name: str
    uid: str
    reason: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class EndSidecars:
    """Ends the sidecars in a pod after openseer's own process has ended. The pod stays, because it has the log."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Stamp:
    """Sets the annotations that inform node autoscalers whether the pod is busy."""

    name: str
    uid: str
    busy: bool


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Adds the finalizer. It delays the job's deletion until the job's keys are deleted from a user's own Redis."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Removes the finalizer, which permits the deletion of the job."""


@dataclass(frozen=True, slots=True)
class Purge:
    """Deletes the job's keys from its store."""


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Deletes the finished job (spec.ttlSecondsAfterFinished)."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Makes an event for users on the job, and on `node` unless it is ""."""

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
