"""The volume of a managed Redis: its StatefulSet cannot enlarge it, so its claim does."""

from collections.abc import Mapping
from typing import Any

# kubernetes' function has no types.
# pyright: reportUnknownVariableType=false
from kubernetes.utils import parse_quantity

from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.kube.owned_objects import MAY_PASS
from openseer_operator.objects.reading import JsonObject


async def resize_claim(api: Api, redis: Mapping[str, Any], name: str, size: str) -> str:
    """Asks for a volume of at least this size for the StatefulSet with metadata `redis`; why Kubernetes refuses, in its
    words, or "". A claim that is not there yet is made in the size that its set says; one that is not of this set is
    not touched. Raises KubeApiError for what says nothing of the volume."""
    try:
        found = await api.get("PersistentVolumeClaim", redis["namespace"], name)
        head: JsonObject = found["metadata"]
        # A volume that others enlarged cannot shrink again.
        if parse_quantity(found["spec"]["resources"]["requests"]["storage"]) >= parse_quantity(size):
            return ""
        # Up to Kubernetes 1.31 the set is an owner of its claims, and no controller.
        if redis["uid"] not in {owner["uid"] for owner in head.get("ownerReferences") or []}:
            return f"{name}: found a claim that is not of this job's Redis; nothing of it is changed"
        body = {"metadata": {"uid": head["uid"]}, "spec": {"resources": {"requests": {"storage": size}}}}
        await api.merge("PersistentVolumeClaim", redis["namespace"], name, body)
    except NotThereError:
        return ""
    except KubeConflictError:  # another claim has its name by now
        raise
    except KubeApiError as error:
        if error.status in MAY_PASS:
            raise
        return f"{name}: {error.message}"
    return ""
