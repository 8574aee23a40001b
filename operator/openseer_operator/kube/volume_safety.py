"""Whether Kubernetes keeps two nodes from writing to the volume of one Redis."""

from typing import Any

from openseer_core.plan.observation import Pod
from openseer_operator.kube.api import FORBIDDEN, Api, KubeApiError, NotThereError
from openseer_operator.objects.managed_redis import data_claims
from openseer_operator.objects.reading import JsonObject

_OF_ONE_NODE = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})


async def volume_risk(api: Api, namespace: str, redis: Pod) -> str:
    """Why a second pod might write to the data of `redis`, which is to be gone from its node, while that still does, or
    would not find them; "" when Kubernetes attaches the volume to one node at a time, and takes it from a node that
    does not answer, before it gives it to another.

    What the pod has at its data folder is judged, whatever the job's template made of that. A failure to find out is a
    risk too; nothing is raised.
    """
    try:
        found = await _get(api, "Node", None, redis.node)
        conditions: list[JsonObject] = (found or {}).get("status", {}).get("conditions") or []
        if any((each["type"], each["status"]) == ("Ready", "True") for each in conditions):
            return "its node answers Kubernetes again, so its pod may still be ending there"
        pod = await _get(api, "Pod", namespace, redis.name)
        if pod is None or pod["metadata"]["uid"] != redis.uid:
            return ""  # it is gone: nothing is left to decide
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
            return ""  # it was never bound: there are no data
        volume = await _get(api, "PersistentVolume", None, name)
        if volume is None:
            return f"its volume {name} is gone: another Redis would begin without its data"
        return await _risk_of(api, volume)
    except KubeApiError as error:
        return _unknown(f"claim {claim}", error)


def _unknown(what: str, error: KubeApiError) -> str:
    if error.status == FORBIDDEN:
        return f"the operator may not read whether its volume is safe ({what}): {error}"
    return f"its volume could not be looked at ({what}): {error}"


async def _risk_of(api: Api, volume: JsonObject) -> str:
    spec: dict[str, Any] = volume["spec"]
    name = f"volume {volume['metadata']['name']}"
    unguarded = "so nothing keeps a second Redis from writing to it beside the first"
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
