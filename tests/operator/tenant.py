"""A namespace with a job and the operator's parts for it, without the watch and the loop; a test plays the
controllers."""

import json
from typing import Any

from openseer_operator.control.apply import Applier
from openseer_operator.control.metrics import OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import RESOURCES, Api, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.objects.names import JOB_LABEL
from openseer_operator.objects.reading import JsonObject
from openseer_operator.settings import OperatorSettings
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ACCESS

MERGE = "application/merge-patch+json"
WRITTEN = (
    "ServiceAccount",
    "ConfigMap",
    "Service",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "Secret",
    "StatefulSet",
    "Pod",
)
"""Kinds that the operator makes for every job."""


class Tenant:
    """`key`: namespace and name of the job that `submit` creates. `settled`: further settings of the operator."""

    def __init__(self, api: Api, plane: ControlPlane, namespace: str, name: str = "job", **settled: Any) -> None:
        settings = OperatorSettings("default", "worker:1", "operator:1", identity="test", stores=ACCESS, **settled)
        self.api = api
        self._plane = plane
        self.key = (namespace, name)
        self.cache = Cache()
        self.stores = StorePoller(api, lambda key: None, access=ACCESS)
        self.census = Census(api, self.cache, (namespace,), lambda key: None)
        observer = Observer(self.cache, self.census, self.stores, settings)
        applier = Applier(api, self.cache, self.census, self.stores, Events(api, settings), settings)
        self._reconciler = Reconciler(
            api, self.cache, self.census, self.stores, observer, applier, OperatorState(), settings
        )

    async def submit(self, **spec: Any) -> None:
        """Creates the job."""
        body = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": self.key[1], "namespace": self.key[0]},
            "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, **spec},
        }
        await self.api.create("RolloutJob", self.key[0], body)

    async def look(self, times: int = 1) -> None:
        """Runs reconcile steps on the API server's present objects; `census.fill` reads shared objects."""
        for _ in range(times):
            self.cache.put_job(await self.api.get("RolloutJob", *self.key))
            async for page in self.api.pages("Pod", self.key[:1], JOB_LABEL):
                for raw in page:
                    self.cache.put_pod(raw)
            await self._reconciler.reconcile(self.key)

    async def place_store(self, node: str = "") -> None:
        """Plays the StatefulSet's controller and the scheduler: creates the Redis pod, on `node` if given."""
        namespace, name = self.key
        pod = store_pod(await self.api.get("StatefulSet", namespace, f"{name}-redis"))
        pod["spec"] |= {"nodeName": node} if node else {}
        await self.api.create("Pod", namespace, pod)

    async def run_pods(self) -> None:
        """Plays the nodes: all pods run and are ready."""
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        async for page in self.api.pages("Pod", self.key[:1], JOB_LABEL):
            for raw in page:
                path = f"{RESOURCES['Pod'].path(self.key[0], raw['metadata']['name'])}/status"
                self._plane.request(path, json.dumps({"status": status}).encode(), "PATCH", MERGE)

    async def start(self, **spec: Any) -> None:
        """Creates the job and reconciles until all its objects exist or are refused, and its status shows that."""
        await self.submit(**spec)
        await self.look()
        if await self.find("StatefulSet", f"{self.key[1]}-redis"):
            await self.place_store()
        await self.look(2)

    async def find(self, kind: str, name: str) -> JsonObject:
        """An object of the namespace, {} if there is none."""
        try:
            return await self.api.get(kind, self.key[0], name)
        except NotThereError:
            return {}

    async def secret_name(self) -> str:
        """Name of the Secret of the job's managed Redis."""
        return (await self.api.get("RolloutJob", *self.key))["status"]["storeSecret"]

    async def conditions(self) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of each condition."""
        status = (await self.api.get("RolloutJob", *self.key))["status"]
        return {each["type"]: (each["status"], each["reason"], each["message"]) for each in status["conditions"]}

    async def events(self, reason: str) -> list[str]:
        """The messages of the namespace's events of that reason."""
        return [event["message"] for event in await self.event_objects(reason)]

    async def event_objects(self, reason: str) -> list[JsonObject]:
        """The whole objects of the namespace's events of that reason."""
        found: list[JsonObject] = []
        async for page in self.api.pages("Event", self.key[:1], fields=f"reason={reason}"):
            found += [{"apiVersion": "v1", "kind": "Event", **event} for event in page]
        return found

    async def pods(self) -> set[str]:
        """Components of the pods of workers and driver."""
        names = [name for kind, name in await snapshot(self.api, self.key[0]) if kind == "Pod"]
        return {name.removeprefix(f"{self.key[1]}-") for name in names} - {"redis-0"}

    async def close(self) -> None:
        await self.stores.close()


async def snapshot(api: Api, namespace: str) -> dict[tuple[str, str], JsonObject]:
    """All objects of a namespace by kind and name, except jobs, events and the API server's own Lease."""
    found: dict[tuple[str, str], JsonObject] = {}
    for kind in (kind for kind, each in RESOURCES.items() if each.namespaced and kind not in ("RolloutJob", "Event")):
        async for page in api.pages(kind, (namespace,)):
            found |= {(kind, entry["metadata"]["name"]): entry for entry in page}
    return {key: entry for key, entry in found.items() if not key[1].startswith("apiserver-")}


def store_pod(found: JsonObject) -> JsonObject:
    """The first pod of a StatefulSet, as its controller makes it."""
    head, spec = found["metadata"], found["spec"]
    name = f"{head['name']}-0"
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": head["name"], "uid": head["uid"]}
    meta = spec["template"]["metadata"] | {"name": name, "ownerReferences": [owner | {"controller": True}]}
    names = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    claims = [{"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{name}"}} for each in names]
    template: JsonObject = spec["template"]["spec"]
    volumes = [*(template.get("volumes") or ()), *claims]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template | {"volumes": volumes}}


def harmless_spec() -> JsonObject:
    """Spec of a pod that the restricted Pod Security level admits."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {"containers": [{"name": "c", "image": "i", "securityContext": security}]}


def foreign(kind: str, name: str) -> JsonObject:
    """A minimal object without an owner."""
    chosen = {"matchLabels": {"app": "platform"}}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    template = {"metadata": {"labels": chosen["matchLabels"]}, "spec": harmless_spec()}
    parts: dict[str, JsonObject] = {
        "ServiceAccount": {"apiVersion": "v1"},
        "ConfigMap": {"apiVersion": "v1", "data": {"mine": "yes"}},
        "Secret": {"apiVersion": "v1", "stringData": {"mine": "yes"}},
        "Service": {"apiVersion": "v1", "spec": {"selector": {"app": "platform"}, "ports": [{"port": 80}]}},
        "PersistentVolumeClaim": {"apiVersion": "v1", "spec": claim},
        "Pod": {"apiVersion": "v1", "spec": harmless_spec()},
        "PodDisruptionBudget": {"apiVersion": "policy/v1", "spec": {"minAvailable": 1, "selector": chosen}},
        "NetworkPolicy": {"apiVersion": "networking.k8s.io/v1", "spec": {"podSelector": {}}},
        "StatefulSet": {
            "apiVersion": "apps/v1",
            "spec": {"serviceName": "s", "replicas": 0, "selector": chosen, "template": template},
        },
        "Deployment": {"apiVersion": "apps/v1", "spec": {"replicas": 0, "selector": chosen, "template": template}},
    }
    return {"kind": kind, "metadata": {"name": name}, **parts[kind]}
