"""Sets the condition of nodes with sick GPUs, by the operator's own probes, not by the reports of jobs.

A tenant controls the image, the store and the exit codes of a job, so a job's report about a node is only a suspicion.
The report makes the operator probe the node. The result sets the condition; a later probe resets it once the GPUs are
healthy.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from openseer_core.plan.actions import Announce
from openseer_operator.kube.api import Api, KubeApiError, KubeConflictError, NotThereError
from openseer_operator.objects.node_probe import PROBE_SECONDS, finding_of, probe_name, probe_pod
from openseer_operator.objects.reading import JobKey, JsonObject
from openseer_operator.settings import OperatorSettings

PROBES_PER_NAMESPACE = 16
"""Limit of probes that all jobs of one namespace cause within PROBE_WINDOW_SECONDS."""
PROBE_WINDOW_SECONDS = 3600.0
"""Window of that limit, in seconds."""
MOST_SUSPECTS = 256
"""Limit of nodes that wait for a probe; further reports are ignored."""
PROBES_AT_ONCE = 4
"""Limit of concurrent probes in the whole cluster."""
RECHECKS_AT_ONCE = 1
"""Number of these that are reserved for new probes of nodes whose condition is False: reports of jobs must not delay
the recovery of a node."""
MOST_UNFIT_NODES = 4
"""Limit of nodes whose condition is False: a fault of the probe must not disable all nodes of a cluster."""
RECHECK_SECONDS = 600.0
"""Interval of probes of a node whose condition is False, in seconds."""
PAUSE_SECONDS = 2.0
"""Interval of checking for due nodes, and for the end of a probe, in seconds."""
LONGEST_MESSAGE = 1024
"""Limit of characters of a condition's message."""
SICK, WELL = "GpuSick", "GpusWell"
"""Reasons of the condition. A probe that finds no fault leaves a condition with another reason as it is: somebody else
has set it. A probe that finds a sick GPU overwrites it."""

log = logging.getLogger(__name__)

AnnounceFunction = Callable[[str, Announce], Awaitable[None]]
"""A function that makes an event on a node."""


class NodeRepair:
    """Probes nodes. `announce`: makes events. If the settings name no condition, it does nothing."""

    def __init__(self, api: Api, settings: OperatorSettings, announce: AnnounceFunction) -> None:
        self._api = api
        self._settings = settings
        self._announce = announce
        self._suspects: dict[str, None] = {}  # nodes, in the order of reports
        self._unfit: dict[str, float] = {}  # by node: monotonic time of the next probe
        self._caused: dict[str, deque[float]] = {}  # times of the last reports by each namespace's jobs

    def suspect(self, job: JobKey, node: str) -> None:
        """Handles a job's report of a sick GPU: the node will be probed, unless the jobs of this namespace have caused
        too many probes, or too many nodes wait for one."""
        if not self._settings.node_condition or node in self._suspects or node in self._unfit:
            return
        now = time.monotonic()
        since = now - PROBE_WINDOW_SECONDS
        self._caused = {namespace: times for namespace, times in self._caused.items() if times[-1] > since}
        times = self._caused.get(job[0], deque(maxlen=PROBES_PER_NAMESPACE))
        often = len(times) == PROBES_PER_NAMESPACE and times[0] > since
        if often or len(self._suspects) >= MOST_SUSPECTS:
            log.warning("%s/%s reports node %s as sick; it is not probed: there were too many reports", *job, node)
            return
        times.append(now)
        self._caused[job[0]] = times
        self._suspects[node] = None

    async def run(self) -> None:
        """Probes until cancelled, while this replica leads."""
        if not self._settings.node_condition:
            return
        loaded = False
        while True:
            try:
                if not loaded:
                    await self._load()
                    loaded = True
                await self.look()
            except KubeApiError as error:
                log.warning("node repair: %s", error)
            except Exception:  # no error may end the loop
                log.exception("node repair: this round of probes failed")
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> None:
        """Probes at most PROBES_AT_ONCE due nodes concurrently, and sets their conditions."""
        now = time.monotonic()
        again = sorted((due, node) for node, due in self._unfit.items() if due <= now)
        rechecks = [node for _, node in again]
        order = dict.fromkeys([*rechecks[:RECHECKS_AT_ONCE], *self._suspects, *rechecks])
        due = list(order)[:PROBES_AT_ONCE]
        for node in due:
            self._suspects.pop(node, None)
            if node in self._unfit:
                self._unfit[node] = now + RECHECK_SECONDS
        await asyncio.gather(*map(self._judge, due))

    async def _load(self) -> None:
        """Makes a probe due at once for each node whose condition an earlier leader has set to False."""
        async for page in self._api.pages("Node", ()):
            for raw in page:
                if self._is_marked_sick(raw):
                    self._unfit[raw["metadata"]["name"]] = 0.0

    async def _judge(self, node: str) -> None:
        try:
            await self._look_at(node)
        except KubeApiError as error:
            log.warning("node %s: %s", node, error)
        except Exception:  # an error about one node must not stop the others
            log.exception("node %s: this probe failed", node)

    async def _look_at(self, node: str) -> None:
        try:
            # The Node is read again: a new Node of the same name does not have the condition.
            marked = self._is_marked_sick(await self._api.get("Node", None, node))
        except NotThereError:  # the node was removed, and is no longer unfit
            self._unfit.pop(node, None)
            return
        well, message = await self._probe(node)
        if well is None:
            if message:
                await self._announce(
                    node, Announce(True, "GpuProbeFailed", f"its GPUs could not be checked: {message}")
                )
        elif well:
            if node in self._unfit and (not marked or await self._set_condition(node, "True", WELL, message)):
                self._unfit.pop(node, None)
        elif not marked:
            await self._call_unfit(node, message)

    def _is_marked_sick(self, node: JsonObject) -> bool:
        """Whether an earlier probe has set the Node's condition to False."""
        conditions: list[JsonObject] = (node.get("status") or {}).get("conditions") or []
        found = ((entry["type"], entry["status"], entry.get("reason")) for entry in conditions)
        return (self._settings.node_condition, "False", SICK) in found

    async def _call_unfit(self, node: str, message: str) -> None:
        kind, known = self._settings.node_condition, node in self._unfit
        if not known and len(self._unfit) >= MOST_UNFIT_NODES:
            why = f"{message}; condition {kind} is not set: {MOST_UNFIT_NODES} nodes have it already, repair them first"
            await self._announce(node, Announce(True, "TooManyUnfitNodes", why))
            return
        self._unfit.setdefault(node, time.monotonic() + RECHECK_SECONDS)
        await self._set_condition(node, "False", SICK, message)

    async def _set_condition(self, node: str, status: str, reason: str, message: str) -> bool:
        """Sets the condition; returns whether the call succeeded. If not, the next probe repeats it. Drops a deleted
        node."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition: JsonObject = {
            "type": self._settings.node_condition,
            "status": status,
            "reason": reason,
            "message": message[:LONGEST_MESSAGE],
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        try:
            await self._api.set_condition("Node", node, condition)
        except NotThereError:
            self._unfit.pop(node, None)
        except KubeApiError as error:
            log.warning("condition %s of node %s is not set: %s", condition["type"], node, error)
        else:
            await self._announce(node, Announce(status == "False", reason, message))
            return True
        return False

    async def _probe(self, node: str) -> tuple[bool | None, str]:
        """Probes a node. Returns whether its GPUs are healthy (None if that is unknown), and the probe's message."""
        namespace, name = self._settings.namespace, probe_name(node)
        try:
            uid = (await self._api.create("Pod", namespace, probe_pod(node, self._settings)))["metadata"]["uid"]
        except KubeConflictError:  # a probe of an earlier leader exists: delete it, and try again in the next round
            await self._end(name, "")
            return None, ""
        except KubeApiError as error:
            return None, str(error)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                while True:
                    found = finding_of(await self._api.get("Pod", namespace, name))
                    if found is not None:
                        return found
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            return None, f"the probe did not end within {PROBE_SECONDS} s"
        except KubeApiError as error:
            return None, str(error)
        finally:
            await self._end(name, uid)

    async def _end(self, name: str, uid: str) -> None:
        try:
            await self._api.delete("Pod", self._settings.namespace, name, uid, at_once=True)
        except KubeApiError as error:
            log.info("probe %s is not deleted: %s", name, error)
