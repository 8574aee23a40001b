"""Events: what a person reads under `kubectl describe`. None is worth failing for."""

import hashlib
import logging
from datetime import UTC, datetime

from openseer_core.manifest.job import API_VERSION, KIND
from openseer_core.plan.actions import Announce
from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError
from openseer_operator.objects.names import MANAGER
from openseer_operator.objects.reading import JobRecord, JsonObject
from openseer_operator.settings import OperatorSettings

LONGEST_MESSAGE = 1024
"""Characters; the API refuses more."""
NODE_EVENTS_NAMESPACE = "default"
"""Where events on cluster-wide objects live."""

log = logging.getLogger(__name__)


class Events:
    """The same event again is counted, not repeated."""

    def __init__(self, api: Api, settings: OperatorSettings) -> None:
        self._api = api
        self._settings = settings

    async def announce(self, job: JobRecord, event: Announce) -> None:
        """On the job, and on the node where one is named."""
        namespace, name = job.key
        log.log(
            logging.WARNING if event.warning else logging.INFO, "%s/%s: %s: %s", *job.key, event.reason, event.message
        )
        involved_object = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": namespace,
            "name": name,
            "uid": job.uid,
        }
        await self._post(namespace, involved_object, event)
        if event.node:
            node = {"apiVersion": "v1", "kind": "Node", "name": event.node, "uid": event.node}
            await self._post(NODE_EVENTS_NAMESPACE, node, event)
            await self._set_node_condition(event)

    async def _post(self, namespace: str, involved_object: dict[str, str], event: Announce) -> None:
        identity = "\n".join((involved_object["uid"], event.reason, event.message))
        name = f"{involved_object['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        now = _time()
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved_object,
            "type": "Warning" if event.warning else "Normal",
            "reason": event.reason,
            "message": event.message[:LONGEST_MESSAGE],
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
            "reportingInstance": self._settings.identity,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            try:
                await self._api.create("Event", namespace, body)
            except KubeConflictError:
                known = await self._api.get("Event", namespace, name)
                update = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": now}
                await self._api.merge("Event", namespace, name, update)
        except KubeApiError as error:
            log.warning(
                "event %s on %s %s is lost: %s", event.reason, involved_object["kind"], involved_object["name"], error
            )

    async def _set_node_condition(self, event: Announce) -> None:
        """The node's own condition, where the cluster's operator wants one."""
        kind = self._settings.node_condition
        if not kind:
            return
        now = _time()
        condition = {
            "type": kind,
            "status": "False",
            "reason": event.reason,
            "message": event.message[:LONGEST_MESSAGE],
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        try:
            await self._api.set_condition("Node", event.node, condition)
        except KubeApiError as error:
            log.warning("condition %s of node %s is not set: %s", kind, event.node, error)


def _time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
