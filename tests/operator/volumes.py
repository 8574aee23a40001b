"""Claims that are bound to volumes of several kinds, for an API server without controllers."""

import uuid
from typing import Any

from openseer_operator.kube.api import Api


async def make_claim(
    api: Api, namespace: str, driver: str | None, modes: list[str], *, attached: bool = True, claim: str = ""
) -> str:
    """Creates a claim bound to a volume of a CSI driver or (None) of a node's folder; returns the volume's name, by
    default the claim's. `attached`: whether the driver's volumes are attached to nodes."""
    name = f"v-{uuid.uuid4().hex[:8]}"
    source: dict[str, Any] = {"hostPath": {"path": "/none"}}
    if driver is not None:
        driver = f"{driver}-{name}"
        source = {"csi": {"driver": driver, "volumeHandle": "h"}}
        body = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": driver}}
        await api.create("CSIDriver", None, body | {"spec": {"attachRequired": attached}})
    capacity = {"storage": "1Gi"}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
    await api.create("PersistentVolume", None, volume | {"spec": {"capacity": capacity, "accessModes": modes} | source})
    meta = {"name": claim or name, "namespace": namespace}
    spec = {"accessModes": modes[:1], "resources": {"requests": capacity}, "volumeName": name}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}
    await api.create("PersistentVolumeClaim", namespace, body)
    return name
