"""From the API's objects to plain values: all that the operator keeps of a pod or a job, and nothing else of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any

from openseer_core.errors import InputError, ManifestError
from openseer_core.manifest.job import API_VERSION, KIND, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.plan.observation import Pod, PodPhase
from openseer_operator.objects.names import (
    ATTEMPT_ANNOTATION,
    JOB_LABEL,
    RANK_LABEL,
    ROLE_LABEL,
    SAFE_TO_EVICT_ANNOTATION,
    TEMPLATE_ANNOTATION,
    WORKER_LABEL,
)

JsonObject = dict[str, Any]
"""An object of the API, or a part of one, as it is sent and received."""
JobKey = tuple[str, str]
"""Namespace and name of a job."""

WORKER_ROLE, DRIVER_ROLE, STORE_ROLE = "worker", "driver", "redis"
LONGEST_TEXT = 1024
"""Characters kept of a pod's message."""
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
"""Reasons of a waiting container that are normal."""


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
    """A job. `job` is None when `problems` says why the operator cannot do what its manifest asks for."""

    key: JobKey
    uid: str
    version: int
    generation: int
    finalizers: tuple[str, ...]
    deleting_since: float | None
    status: JsonObject
    job: RolloutJob | None
    problems: str = ""


def job_key(raw: Mapping[str, Any]) -> JobKey:
    """Of a RolloutJob."""
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


def version_of(raw: Mapping[str, Any]) -> int:
    """resourceVersion: of two versions of one object, the newer has the larger number."""
    return int(raw["metadata"].get("resourceVersion") or 0)


def read_job(raw: Mapping[str, Any], known: JobRecord | None = None) -> JobRecord:
    """`known`: the record there was; its manifest is not parsed again while its generation lasts."""
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
        deleting_since=seconds(meta.get("deletionTimestamp")),
        status=raw.get("status") or {},
        job=job,
        problems=problems,
    )


def _parse(raw: Mapping[str, Any]) -> tuple[RolloutJob | None, str]:
    """Labels and annotations are taken as they are when the spec changes; no generation counts them."""
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": raw["metadata"], "spec": raw.get("spec")}
    try:
        return parse_job(document, "manifest"), ""
    except ManifestError as error:
        return None, "; ".join(error.problems)
    except InputError as error:
        return None, str(error)


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Which pod of its job a pod is, by its labels. `index`: of its worker, None for driver and Redis."""

    key: JobKey
    role: str
    index: int | None
    rank: int


def pod_identity(meta: Mapping[str, Any]) -> PodIdentity | None:
    """None for a pod that is not of a job's worker, driver or Redis."""
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
    """None for a pod that is none of ours (see `pod_identity`)."""
    identity = pod_identity(raw["metadata"])
    if identity is None:
        return None
    return PodRecord(identity.key, identity.role, owner_uid(raw["metadata"]), version_of(raw), _pod(raw, identity))


def _pod(raw: Mapping[str, Any], identity: PodIdentity) -> Pod:
    meta: JsonObject = raw["metadata"]
    status: JsonObject = raw.get("status") or {}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    conditions: list[JsonObject] = status.get("conditions") or []
    termination = _termination(status, identity.role)
    unschedulable = _unschedulable(conditions)
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        index=identity.index,
        rank=identity.rank,
        template=intern(annotations.get(TEMPLATE_ANNOTATION, "")),
        attempt=_number(annotations.get(ATTEMPT_ANNOTATION)),
        phase=_phase(status.get("phase", "")),
        ready=any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions),
        gone_by=seconds(meta.get("deletionTimestamp")),
        node=intern(raw["spec"].get("nodeName") or ""),
        unschedulable=unschedulable is not None,
        problem=(unschedulable if unschedulable is not None else _problem(status, termination))[:LONGEST_TEXT],
        exit_code=termination.get("exitCode"),
        message=str(termination.get("message") or status.get("message") or "")[:LONGEST_TEXT],
        conditions=frozenset((intern(condition["type"]), intern(condition["status"])) for condition in conditions),
        stamp=_stamp(annotations.get(SAFE_TO_EVICT_ANNOTATION)),
    )


def owner_uid(meta: Mapping[str, Any]) -> str:
    """The uid of the object's controller, "" when it has none."""
    owners: list[JsonObject] = meta.get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def seconds(text: str | None) -> float | None:
    """A time of the API, in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp() if text else None


def _phase(text: str) -> PodPhase:
    try:
        return PodPhase(text or "Pending")
    except ValueError:  # "Unknown": its node does not answer
        return PodPhase.RUNNING


def _termination(status: Mapping[str, Any], role: str) -> JsonObject:
    """How openseer's own container ended, {} while it has not."""
    containers: list[JsonObject] = status.get("containerStatuses") or []
    for container in containers:
        if container.get("name") == role:
            state: JsonObject = container.get("state") or {}
            return state.get("terminated") or {}
    return {}


def _unschedulable(conditions: Iterable[Mapping[str, Any]]) -> str | None:
    """Why no node takes the pod, None when that is not known."""
    for condition in conditions:
        if (
            condition["type"] == "PodScheduled"
            and condition["status"] == "False"
            and condition.get("reason") == "Unschedulable"
        ):
            return condition.get("message") or "no node takes it"
    return None


def _problem(status: Mapping[str, Any], termination: Mapping[str, Any]) -> str:
    """Why the pod does not start, or what ended it, beside an exit code; "" when nothing is known."""
    if termination.get("reason") == "OOMKilled":
        return "OOMKilled: it needed more memory than its limit"
    if status.get("reason"):  # Evicted, NodeLost, DeadlineExceeded, …
        return status["reason"]
    containers: list[JsonObject] = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for container in containers:
        state: JsonObject = container.get("state") or {}
        waiting: Mapping[str, str] = state.get("waiting") or {}
        reason = waiting.get("reason") or ""
        if reason and reason not in _STARTING:
            return f"{reason}: {waiting['message']}" if waiting.get("message") else reason
    return ""


def _stamp(safe_to_evict: str | None) -> bool | None:
    return None if safe_to_evict is None else safe_to_evict == "false"


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
