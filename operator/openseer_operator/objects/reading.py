"""Parses pods and jobs of the Kubernetes API into records.

An object with any content gives a record: a tenant's malformed object must not stop the operator for other jobs.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any

from openseer_core.errors import InputError, ManifestError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.plan.observation import Pod, PodPhase
from openseer_operator.objects.names import (
    ATTEMPT_ANNOTATION,
    AVOID_ANNOTATION,
    JOB_LABEL,
    RANK_LABEL,
    REVIVE_ANNOTATION,
    ROLE_LABEL,
    SAFE_TO_EVICT_ANNOTATION,
    TEMPLATE_ANNOTATION,
    WORKER_LABEL,
)
from openseer_operator.objects.status_parts import seconds_of

JsonObject = dict[str, Any]
"""An object of the API, or a part of one, as parsed JSON."""
JobKey = tuple[str, str]
"""Namespace and name of a job."""

WORKER_ROLE, DRIVER_ROLE, STORE_ROLE = "worker", "driver", "redis"
LONGEST_REQUEST = 256
"""Limit of characters stored of a request to revive a job."""
LONGEST_TEXT = 1024
"""Limit of characters stored of a pod's termination message, and of its problem."""
LONGEST_NUMBER = 9
"""Limit of digits of a whole number in an annotation."""
UNREADABLE = "the operator cannot read it"
"""Message about an object that the operator cannot parse."""
_READY = ("Ready", "True")
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a waiting container that are no problem."""
_KUEUE = "kueue.x-k8s.io/"
"""Prefix of Kueue's scheduling gates."""
_REFUSALS = frozenset({"UnexpectedAdmissionError", "TopologyAffinityError"})
"""Reasons with which a node refuses a pod, in addition to OutOf… (OutOfcpu, OutOfnvidia.com/gpu)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodRecord:
    """A pod of a job. `owner`: uid of its controller; `version`: its resourceVersion."""

    key: JobKey
    role: str
    owner: str
    version: int
    pod: Pod


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job. `job`: its parsed manifest, None if the operator cannot carry it out; `problems`: the reasons for that, ""
    for none. `deleting_since`: time of its deletion (seconds since the epoch), None without one. `revive`: the value of
    the request to revive it, "" for none."""

    key: JobKey
    uid: str
    version: int
    generation: int
    finalizers: tuple[str, ...]
    deleting_since: float | None
    status: JsonObject
    job: RolloutJob | None
    problems: str = ""
    revive: str = ""


def job_key(raw: Mapping[str, Any]) -> JobKey:
    """The key of a RolloutJob."""
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


def version_of(raw: Mapping[str, Any]) -> int:
    """The resourceVersion as a number; a newer version of an object has a larger number."""
    return int(raw["metadata"].get("resourceVersion") or 0)


def read_job(raw: Mapping[str, Any], known: JobRecord | None = None) -> JobRecord:
    """Parses a job. `known`: its earlier record; the parsed manifest is reused if the generation is the same."""
    meta = raw["metadata"]
    uid, generation = meta["uid"], meta.get("generation", 0)
    if known is not None and (known.uid, known.generation) == (uid, generation):
        job, problems = known.job, known.problems
    else:
        job, problems = _parse(raw)
    return JobRecord(
        key=job_key(raw),
        uid=uid,
        version=version_of(raw),
        generation=generation,
        finalizers=tuple(meta.get("finalizers") or ()),
        deleting_since=seconds_of(meta.get("deletionTimestamp")),
        status=raw.get("status") or {},
        job=job,
        problems=problems,
        revive=str(_part(meta, "annotations").get(REVIVE_ANNOTATION, ""))[:LONGEST_REQUEST],
    )


def _parse(raw: Mapping[str, Any]) -> tuple[RolloutJob | None, str]:
    """Parses the manifest; returns the job, or None and the problems. The job keeps the labels and annotations of the
    last change of the spec, because changes of labels and annotations do not increase the generation."""
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": raw["metadata"], "spec": raw.get("spec")}
    try:
        return parse_job(document, "manifest"), ""
    except ManifestError as error:
        return None, "; ".join(error.problems)
    except InputError as error:
        return None, str(error)
    except Exception:
        log.exception("job %s/%s: %s", *job_key(raw), UNREADABLE)
        return None, UNREADABLE


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """The identity of a job's pod, from its labels. `index`: its worker's number, None for driver and Redis."""

    key: JobKey
    role: str
    index: int | None
    rank: int


def pod_identity(meta: Mapping[str, Any]) -> PodIdentity | None:
    """The identity of a pod; None if the pod is no worker, driver or Redis of a job."""
    labels: Mapping[str, str] = meta.get("labels") or {}
    job, role = labels.get(JOB_LABEL), labels.get(ROLE_LABEL)
    if job is None or role not in (WORKER_ROLE, DRIVER_ROLE, STORE_ROLE):
        return None
    number, rank = labels.get(WORKER_LABEL, ""), labels.get(RANK_LABEL, "0")
    if role == WORKER_ROLE and not (number.isdecimal() and rank.isdecimal()):
        return None
    index = int(number) if role == WORKER_ROLE else None
    return PodIdentity(
        (intern(meta["namespace"]), intern(job)), intern(role), index, int(rank) if index is not None else 0
    )


def read_pod(raw: Mapping[str, Any]) -> PodRecord | None:
    """Parses a pod; returns None if it has no identity (see `pod_identity`)."""
    identity = pod_identity(raw["metadata"])
    if identity is None:
        return None
    meta = raw["metadata"]
    try:
        pod = _pod(raw, identity)
    except Exception:  # the record is needed: no other pod can be created under this name
        log.exception("pod %s/%s: %s", meta["namespace"], meta["name"], UNREADABLE)
        pod = Pod(meta["name"], meta["uid"], identity.index, identity.rank, problem=UNREADABLE)
    return PodRecord(identity.key, identity.role, owner_uid(meta), version_of(raw), pod)


def _pod(raw: Mapping[str, Any], identity: PodIdentity) -> Pod:
    meta: JsonObject = raw["metadata"]
    status: JsonObject = raw.get("status") or {}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    conditions: list[JsonObject] = status.get("conditions") or []
    own = _own_container(status, identity.role)
    termination = _part(_part(own, "state"), "terminated")
    phase = _phase(status.get("phase", ""))
    setup_failure = _setup_failure(status) if phase is PodPhase.FAILED and not termination else ""
    unschedulable = _not_scheduled(conditions, "Unschedulable")
    gated = _not_scheduled(conditions, "SchedulingGated")
    waits = unschedulable if unschedulable is not None else _gates(raw["spec"]) if gated is not None else ""
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        index=identity.index,
        rank=identity.rank,
        template=intern(annotations.get(TEMPLATE_ANNOTATION, "")),
        attempt=whole_number(annotations.get(ATTEMPT_ANNOTATION)) or 0,
        phase=(PodPhase.FAILED if termination.get("exitCode") else PodPhase.SUCCEEDED) if termination else phase,
        ready=_ready(conditions, own),
        gone_by=seconds_of(meta.get("deletionTimestamp")),
        node=intern(raw["spec"].get("nodeName") or ""),
        unschedulable=unschedulable is not None,
        gated=gated is not None,
        problem=(waits or setup_failure or _problem(status, own))[:LONGEST_TEXT],
        exit_code=termination.get("exitCode"),
        message=str(termination.get("message") or status.get("message") or "")[:LONGEST_TEXT],
        lingers=bool(termination) and phase not in (PodPhase.SUCCEEDED, PodPhase.FAILED),
        setup_failed=bool(setup_failure),
        conditions=frozenset((intern(condition["type"]), intern(condition["status"])) for condition in conditions),
        stamp=_stamp(annotations.get(SAFE_TO_EVICT_ANNOTATION)),
        start_seconds=_start_seconds(meta, conditions),
        started_at=seconds_of(status.get("startTime")),
        refused=_is_refused(status),
        avoids=frozenset(intern(node) for node in annotations.get(AVOID_ANNOTATION, "").split(",") if node),
    )


def owner_uid(meta: Mapping[str, Any]) -> str:
    """The uid of the object's controller; "" without one."""
    owners: list[JsonObject] = meta.get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def whole_number(text: str | None) -> int | None:
    """The whole number in an annotation; None without a number, or if it has more than LONGEST_NUMBER digits."""
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST_NUMBER else None


def _phase(text: str) -> PodPhase:
    try:
        return PodPhase(text or "Pending")
    except ValueError:  # "Unknown": the node does not answer
        return PodPhase.RUNNING


def _own_container(status: Mapping[str, Any], role: str) -> JsonObject:
    """The status of openseer's own container; {} before the node has reported it."""
    containers: list[JsonObject] = status.get("containerStatuses") or []
    for container in containers:
        if container.get("name") == role:
            return container
    return {}


def _ready(conditions: Iterable[Mapping[str, Any]], own: Mapping[str, Any]) -> bool:
    """Whether openseer's container is ready on a node that answers. For a lost node Kubernetes sets only `Ready` to
    False; for a sidecar that is not ready also `ContainersReady`."""
    states = {condition["type"]: condition["status"] for condition in conditions}
    node_answers = states.get("Ready") == "True" or (bool(own) and states.get("ContainersReady") == "False")
    return node_answers and bool(own.get("ready", True))


def _not_scheduled(conditions: Iterable[Mapping[str, Any]], reason: str) -> str | None:
    """The scheduler's message if it does not place the pod for this reason; None for other pods."""
    for condition in conditions:
        if condition["type"] == "PodScheduled" and condition["status"] == "False" and condition.get("reason") == reason:
            return condition.get("message") or "no node accepts it"
    return None


def _gates(spec: Mapping[str, Any]) -> str:
    """The message about a gated pod: its gates, and the controller that opens them."""
    gates: list[Mapping[str, str]] = spec.get("schedulingGates") or []
    names = ", ".join(gate["name"] for gate in gates)
    holder = "Kueue has not admitted it yet" if _KUEUE in names else "its holder has not opened it yet"
    return f"it waits for its scheduling gate {names}: {holder}" if names else "its scheduling is gated"


def _setup_failure(status: Mapping[str, Any]) -> str:
    """The message about a failed init container, which prevented openseer's container from running; "" without one."""
    containers: list[JsonObject] = status.get("initContainerStatuses") or []
    for container in containers:
        ended = _part(_part(container, "state"), "terminated")
        if ended.get("exitCode"):
            words = str(ended.get("message") or ended.get("reason") or "").strip()
            return f"init container {container['name']}: exit code {ended['exitCode']}: {words}".rstrip(": ")
    return ""


def _problem(status: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Why the pod does not start, or why it ended if the exit code does not say it; "" if unknown. Problems of other
    containers count only until openseer's container runs."""
    state = _part(own, "state")
    if _part(state, "terminated").get("reason") == "OOMKilled":
        return "OOMKilled: it needed more memory than its limit"
    if status.get("reason"):  # Evicted, NodeLost, DeadlineExceeded, …
        return status["reason"]
    if "terminated" in state or "running" in state:
        return ""
    containers: list[JsonObject] = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        waiting = _part(_part(container, "state"), "waiting")
        reason = waiting.get("reason") or ""
        if reason and reason not in _STARTING:
            return f"{reason}: {waiting['message']}" if waiting.get("message") else reason
    return ""


def _part(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The map `name` within a map; empty if it is missing or null."""
    return owner.get(name) or {}


def _start_seconds(meta: Mapping[str, Any], conditions: Iterable[Mapping[str, Any]]) -> float | None:
    """Seconds from the pod's creation until it was ready; None if it is not ready."""
    times = (entry.get("lastTransitionTime") for entry in conditions if (entry["type"], entry["status"]) == _READY)
    ready, made = seconds_of(next(times, None)), seconds_of(meta.get("creationTimestamp"))
    return max(0.0, ready - made) if ready is not None and made is not None else None


def _stamp(safe_to_evict: str | None) -> bool | None:
    return None if safe_to_evict is None else safe_to_evict == "false"


def _is_refused(status: Mapping[str, Any]) -> bool:
    reason = status.get("reason") or ""
    return status.get("phase") == "Failed" and (reason in _REFUSALS or reason.startswith("OutOf"))
