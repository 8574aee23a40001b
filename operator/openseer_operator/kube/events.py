"""Makes Kubernetes events, which `kubectl describe` shows. A failed call is only logged."""

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from openseer_core.manifest.job import API_VERSION, KIND
from openseer_core.plan.actions import Announce
from openseer_core.plan.failures import GPU_SICK
from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError
from openseer_operator.objects.names import MANAGER
from openseer_operator.objects.reading import JobKey, JobRecord, JsonObject
from openseer_operator.settings import OperatorSettings

LONGEST_MESSAGE = 1024
"""Limit of characters of a message; the API refuses longer ones."""
NODE_EVENTS_NAMESPACE = "default"
"""Namespace of events on cluster-wide objects."""

log = logging.getLogger(__name__)


class Events:
    """Makes events; a repetition raises the count of the existing event. `suspect`: called with a job and the node on
    which the job reports a sick GPU."""

    def __init__(
        self, api: Api, settings: OperatorSettings, suspect: Callable[[JobKey, str], None] | None = None
    ) -> None:
        self._api = api
        self._settings = settings
        self._suspect = suspect

    async def announce(self, job: JobRecord, event: Announce) -> None:
        """Makes an event on the job, and on the node if the event names one."""
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
            await self.tell_node(event.node, event)
        if event.node and event.reason == GPU_SICK and self._suspect is not None:
            self._suspect(job.key, event.node)

    async def tell_node(self, node: str, event: Announce) -> None:
        """Makes an event on the node, not on a job."""
        log.log(
            logging.WARNING if event.warning else logging.INFO, "node %s: %s: %s", node, event.reason, event.message
        )
        involved_object = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node}
        await self._post(NODE_EVENTS_NAMESPACE, involved_object, event)

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
                if (known.get("involvedObject") or {}).get("uid") != involved_object["uid"]:
                    raise
                update = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": now}
                await self._api.merge("Event", namespace, name, update)
        except KubeApiError as error:
            log.warning(
                "event %s on %s %s was not created: %s",
                event.reason,
                involved_object["kind"],
                involved_object["name"],
                error,
            )


def _time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
