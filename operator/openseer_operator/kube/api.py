"""A client of the Kubernetes API: a few verbs, a table of kinds, and errors by cause."""

import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from openseer_core.errors import InputError, OpenseerError
from openseer_operator.kube.clock import ServerClock
from openseer_operator.objects.reading import JsonObject
from openseer_operator.settings import FIELD_MANAGER
from openseer_process.deep_json import read_json

CONNECT_SECONDS = 5.0
"""Timeout for connecting to the API server, in seconds."""
CALL_SECONDS = 15.0
"""Timeout of the answer to one call, in seconds."""
PAGE_SECONDS = 30.0
"""Timeout of one page of a LIST, in seconds."""
PAGE_OBJECTS = 500
"""Objects per page of a LIST."""
CONNECTIONS = 64
"""Limit of connections to the API server; watches are not counted."""
LONGEST_ERROR = 500
"""Limit of characters kept of a server's error message."""

FORBIDDEN = 403
"""HTTP status of a call for which the operator has no permission."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"


class KubeApiError(OpenseerError):
    """A call failed. `status`: the HTTP status, 0 without an answer; `message`: the server's message."""

    retryable = True

    def __init__(self, text: str, status: int = 0, message: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.message = message or text


class NotThereError(KubeApiError):
    """The object does not exist (404), or no longer exists (410)."""


class KubeConflictError(KubeApiError):
    """A conflict (409): the object exists already, or has another uid or resourceVersion. To a patch with another uid
    the server answers 422."""


class AlreadyThereError(KubeConflictError):
    """The object exists already (reason AlreadyExists). Any other 409 of a creation means that a quota was being
    updated at the same time."""


@dataclass(frozen=True, slots=True)
class Resource:
    """The path of a kind in the Kubernetes API."""

    prefix: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        """The path of the collection, of the object `name`, or of its subresource `sub`."""
        parts = [self.prefix]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join(filter(None, [*parts, self.plural, name, sub]))


RESOURCES: Mapping[str, Resource] = {
    "RolloutJob": Resource("/apis/openseer.dev/v1alpha1", "rolloutjobs"),
    "Pod": Resource("/api/v1", "pods"),
    "Service": Resource("/api/v1", "services"),
    "ConfigMap": Resource("/api/v1", "configmaps"),
    "Secret": Resource("/api/v1", "secrets"),
    "ServiceAccount": Resource("/api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": Resource("/api/v1", "persistentvolumeclaims"),
    "Event": Resource("/api/v1", "events"),
    "Node": Resource("/api/v1", "nodes", namespaced=False),
    "PersistentVolume": Resource("/api/v1", "persistentvolumes", namespaced=False),
    "CSIDriver": Resource("/apis/storage.k8s.io/v1", "csidrivers", namespaced=False),
    "Deployment": Resource("/apis/apps/v1", "deployments"),
    "StatefulSet": Resource("/apis/apps/v1", "statefulsets"),
    "PodDisruptionBudget": Resource("/apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": Resource("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": Resource("/apis/coordination.k8s.io/v1", "leases"),
}


class Api:
    """The client for all calls. `calls`: number of calls by verb, kind and status; `answered_at`: monotonic time of the
    last answer, in seconds; `clock`: the server's clock."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self.answered_at = time.monotonic()
        self.clock = ServerClock()

    @staticmethod
    async def connect() -> "Api":
        """Connects as the pod's ServiceAccount; outside a pod, with KUBECONFIG. Raises InputError without either."""
        configuration = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            try:
                await load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
            except (ConfigException, OSError) as error:
                raise InputError(
                    f"no access to the Kubernetes API, neither in a pod nor through KUBECONFIG: {error}"
                ) from None
        configuration.connection_pool_maxsize = CONNECTIONS
        return Api(ApiClient(configuration))

    async def close(self) -> None:
        await self._client.close()

    # ---- one object; each call raises KubeApiError or a subclass

    async def get(self, kind: str, namespace: str | None, name: str) -> JsonObject:
        return await self._call("GET", kind, RESOURCES[kind].path(namespace, name))

    async def create(self, kind: str, namespace: str | None, body: JsonObject) -> JsonObject:
        """Creates an object. Raises KubeConflictError if the name is in use. An unknown or duplicate field is an error
        (strict validation): a rule of a NetworkPolicy without that field could permit more."""
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        return await self._call("POST", kind, RESOURCES[kind].path(namespace), query=query, body=body)

    async def try_create(self, kind: str, namespace: str | None, body: JsonObject) -> None:
        """Validates an object by a dry run of `create`; raises the same errors."""
        query = [("fieldManager", FIELD_MANAGER), ("dryRun", "All"), ("fieldValidation", "Strict")]
        await self._call("POST", kind, RESOURCES[kind].path(namespace), query=query, body=body)

    async def replace(self, kind: str, namespace: str | None, body: JsonObject) -> JsonObject:
        """Replaces an object. Raises KubeConflictError if the body's resourceVersion is not the newest."""
        path = RESOURCES[kind].path(namespace, body["metadata"]["name"])
        return await self._call("PUT", kind, path, query=[("fieldManager", FIELD_MANAGER)], body=body)

    async def apply(self, kind: str, body: JsonObject, sub: str = "") -> JsonObject:
        """Server-side apply: sets the fields in `body`, and removes fields that an earlier apply set and `body`
        lacks."""
        meta = body["metadata"]
        path = RESOURCES[kind].path(meta.get("namespace"), meta["name"], sub)
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        return await self._call("PATCH", kind, path, query=query, body=body, content=_APPLY)

    async def merge(self, kind: str, namespace: str | None, name: str, body: JsonObject) -> JsonObject:
        """A merge patch: maps are merged, lists are replaced, null removes a field."""
        path = RESOURCES[kind].path(namespace, name)
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._call("PATCH", kind, path, query=query, body=body, content=_MERGE)

    async def set_condition(self, kind: str, name: str, condition: JsonObject) -> JsonObject:
        """Sets one condition in the status of a cluster-wide object; its other conditions stay."""
        path = RESOURCES[kind].path(None, name, "status")
        return await self._call("PATCH", kind, path, body={"status": {"conditions": [condition]}}, content=_STRATEGIC)

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "", *, at_once: bool = False) -> JsonObject:
        """Deletes an object. `uid`: a precondition; an object with another uid gives a KubeConflictError. `at_once`: a
        forced deletion (grace period 0), which does not wait for the node."""
        body: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if at_once:
            body["gracePeriodSeconds"] = 0
        return await self._call("DELETE", kind, RESOURCES[kind].path(namespace, name), body=body)

    # ---- many objects

    async def pages(
        self, kind: str, namespaces: Sequence[str], selector: str = "", *, fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[list[JsonObject]]:
        """Lists the objects of a kind that match the selectors of labels and fields, in pages. An empty `namespaces`
        means the whole cluster."""
        for namespace in namespaces or (None,):
            selectors = (("labelSelector", selector), ("fieldSelector", fields))
            query = [("limit", str(PAGE_OBJECTS)), *(entry for entry in selectors if entry[1])]
            continue_token = ""
            while True:
                more = [("continue", continue_token)] if continue_token else []
                accept = _METADATA_ONLY if metadata_only else "application/json"
                path = RESOURCES[kind].path(namespace)
                page = await self._call("LIST", kind, path, query=[*query, *more], accept=accept, seconds=PAGE_SECONDS)
                yield page.get("items") or []
                continue_token = page["metadata"].get("continue", "")
                if not continue_token:
                    break

    # ---- the call itself

    async def _call(
        self,
        verb: str,
        kind: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: JsonObject | None = None,
        content: str = "application/json",
        accept: str = "application/json",
        seconds: float = CALL_SECONDS,
    ) -> JsonObject:
        method = "GET" if verb == "LIST" else verb
        headers = {"Accept": accept, "Content-Type": content}
        status, sent = 0, time.time()
        try:
            request = await self._client.param_serialize(
                method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            limit: Any = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
            response = await self._client.call_api(*request, _request_timeout=limit)
            status = response.status
            self.clock.observe(response.headers.get("Date"), sent, time.time())
            data = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise KubeApiError(f"{verb} {path}: the Kubernetes API did not answer: {reason}") from None
        finally:
            self.calls[verb, kind, status] += 1
        self.answered_at = time.monotonic()
        if status >= 400:
            raise _error_of(status, f"{verb} {path}", data)
        return read_json(data)


def _error_of(status: int, call: str, data: bytes) -> KubeApiError:
    reason = ""
    try:
        answer = json.loads(data)
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (ValueError, AttributeError):
        message = data.decode(errors="replace")
    message = message[:LONGEST_ERROR]
    text = f"{call}: {status} {message}"
    if status in (404, 410):
        return NotThereError(text, status, message)
    if (status, reason) == (409, "AlreadyExists"):
        return AlreadyThereError(text, status, message)
    is_another = status == 409 or (status == 422 and "metadata.uid: " in message)
    return (KubeConflictError if is_another else KubeApiError)(text, status, message)
