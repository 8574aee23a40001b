"""Enlarges the volume of a managed Redis through its claim, because a StatefulSet cannot do it."""

from collections.abc import Mapping
from typing import Any

# kubernetes' function has no types.
# pyright: reportUnknownVariableType=false
from kubernetes.utils import parse_quantity

from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.kube.owned_objects import MAY_PASS
from openseer_operator.objects.reading import JsonObject


async def resize_claim(api: Api, redis: Mapping[str, Any], name: str, size: str) -> str:
    """Requests at least this size for the claim `name` of the StatefulSet with metadata `redis`. Returns Kubernetes'
    message if it refuses, else "". A missing claim is no problem: the StatefulSet will create it in the new size. A
    claim of another owner is not changed, and gives a message. Raises KubeApiError for errors that are no refusal."""
    try:
        found = await api.get("PersistentVolumeClaim", redis["namespace"], name)
        head: JsonObject = found["metadata"]
        # Somebody else has enlarged the volume; it cannot shrink.
        if parse_quantity(found["spec"]["resources"]["requests"]["storage"]) >= parse_quantity(size):
            return ""
        # Up to Kubernetes 1.31 the StatefulSet owns its claims, but is not their controller.
        if redis["uid"] not in {owner["uid"] for owner in head.get("ownerReferences") or []}:
            return f"{name}: found a claim that does not belong to this job's Redis; it is not changed"
        body = {"metadata": {"uid": head["uid"]}, "spec": {"resources": {"requests": {"storage": size}}}}
        await api.merge("PersistentVolumeClaim", redis["namespace"], name, body)
    except NotThereError:
        return ""
    except KubeConflictError:  # another claim has the name now
        raise
    except KubeApiError as error:
        if error.status in MAY_PASS:
            raise
        return f"{name}: {error.message}"
    return ""
