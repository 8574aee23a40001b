"""Checks that Kubernetes prevents two nodes from writing to the volume of one Redis."""

from typing import Any

from openseer_core.plan.observation import Pod
from openseer_operator.kube.api import FORBIDDEN, Api, KubeApiError, NotThereError
from openseer_operator.objects.managed_redis import data_claims
from openseer_operator.objects.reading import JsonObject

_OF_ONE_NODE = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})


async def volume_risk(api: Api, namespace: str, redis: Pod) -> str:
    """Why a second Redis pod may not start while the node of `redis` does not answer: it could write to the same data
    at the same time, or lack the data. "" without such a risk: Kubernetes attaches the volume to one node at a time,
    and detaches it from the lost node first.

    Checks the actual volume at the pod's data folder, because a job's template may have changed it. A failed check
    counts as a risk. Never raises.
    """
    try:
        found = await _get(api, "Node", None, redis.node)
        conditions: list[JsonObject] = (found or {}).get("status", {}).get("conditions") or []
        if any((each["type"], each["status"]) == ("Ready", "True") for each in conditions):
            return "its node answers Kubernetes again, so its pod may still be ending there"
        pod = await _get(api, "Pod", namespace, redis.name)
        if pod is None or pod["metadata"]["uid"] != redis.uid:
            return ""  # the pod is gone
        claims = data_claims(pod)
    except KubeApiError as error:
        return _unknown("its volume", error)
    if not claims:
        return "it has no volume for its data"
    for name, claim in claims.items():
        risk = await _risk_of_claim(api, namespace, claim) if claim else f"its volume {name} comes from no claim"
        if risk:
            return risk
    return ""


async def _risk_of_claim(api: Api, namespace: str, claim: str) -> str:
    try:
        bound = await _get(api, "PersistentVolumeClaim", namespace, claim)
        if bound is None:
            return f"its claim {claim} is gone: another Redis would begin without its data"
        name: str = bound["spec"].get("volumeName") or ""
        if not name:
            return ""  # the claim was never bound: there are no data
        volume = await _get(api, "PersistentVolume", None, name)
        if volume is None:
            return f"its volume {name} is gone: another Redis would begin without its data"
        return await _risk_of(api, volume)
    except KubeApiError as error:
        return _unknown(f"claim {claim}", error)


def _unknown(what: str, error: KubeApiError) -> str:
    if error.status == FORBIDDEN:
        return f"the operator has no permission to check its volume ({what}): {error}"
    return f"its volume could not be checked ({what}): {error}"


async def _risk_of(api: Api, volume: JsonObject) -> str:
    spec: dict[str, Any] = volume["spec"]
    name = f"volume {volume['metadata']['name']}"
    unguarded = "so nothing prevents a second Redis from writing to it at the same time"
    csi: dict[str, Any] | None = spec.get("csi")
    if csi is None:
        return f"{name} is not attached to nodes by a CSI driver, {unguarded}"
    shared = sorted(set(spec.get("accessModes") or ()) - _OF_ONE_NODE)
    if shared:
        return f"{name} allows {', '.join(shared)}, {unguarded}"
    driver = await _get(api, "CSIDriver", None, csi["driver"])
    if driver is not None and not (driver.get("spec") or {}).get("attachRequired", True):
        return f"{name} of {csi['driver']} is not attached to nodes, {unguarded}"
    return ""


async def _get(api: Api, kind: str, namespace: str | None, name: str) -> JsonObject | None:
    try:
        return await api.get(kind, namespace, name)
    except NotThereError:
        return None
