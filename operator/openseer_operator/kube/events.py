"""Events: what a person reads under `kubectl describe`. None is worth failing for."""

import hashlib
import logging
from datetime import UTC, datetime

from openseer_core.manifest.job import API_VERSION, KIND
from openseer_core.plan.actions import Announce
from openseer_operator.kube.api import Api, Json, KubeApiError, KubeConflictError
from openseer_operator.objects.names import MANAGER
from openseer_operator.objects.reading import JobRecord
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

    async def announce(self, job: JobRecord, what: Announce) -> None:
        """On the job, and on the node where one is named."""
        namespace, name = job.key
        log.log(logging.WARNING if what.warning else logging.INFO, "%s/%s: %s: %s", *job.key, what.reason, what.message)
        about = {"apiVersion": API_VERSION, "kind": KIND, "namespace": namespace, "name": name, "uid": job.uid}
        await self._post(namespace, about, what)
        if what.node:
            node = {"apiVersion": "v1", "kind": "Node", "name": what.node, "uid": what.node}
            await self._post(NODE_EVENTS_NAMESPACE, node, what)
            await self._mark(what)

    async def _post(self, namespace: str, about: dict[str, str], what: Announce) -> None:
        words = "\n".join((about["uid"], what.reason, what.message))
        name = f"{about['name']}.{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        now = _time()
        body: Json = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": "Warning" if what.warning else "Normal",
            "reason": what.reason,
            "message": what.message[:LONGEST_MESSAGE],
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
                again = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": now}
                await self._api.merge("Event", namespace, name, again)
        except KubeApiError as error:
            log.warning("event %s on %s %s is lost: %s", what.reason, about["kind"], about["name"], error)

    async def _mark(self, what: Announce) -> None:
        """The node's own condition, where the cluster's operator wants one."""
        kind = self._settings.node_condition
        if not kind:
            return
        now = _time()
        condition = {
            "type": kind,
            "status": "False",
            "reason": what.reason,
            "message": what.message[:LONGEST_MESSAGE],
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        try:
            await self._api.set_condition("Node", what.node, condition)
        except KubeApiError as error:
            log.warning("condition %s of node %s is not set: %s", kind, what.node, error)


def _time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
