"""A separate control plane with Karpenter, for tests of node pools.

Real: the API server, its controllers, the scheduler, Karpenter, the operator and the job's Redis. Simulated: the cloud
(Karpenter's provider for kwok), nodes and pods (kwok: a pod runs as soon as it has a node), and the store calls and
reports of workers and driver. It needs no network, no image and no root.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.support.control_plane import Client, ControlPlane, client_of, find_programs, free_port
from openseer_core.ids import GroupId, WorkerId
from openseer_core.queue.group import SHARED_LANE, GroupSpec, Priority
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import BatchProgress, Claim, ClaimQuery, Delta, Finish
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import pack_tokens
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.connect import open_store
from openseer_store.port import Store
from tests.repository import ROOT

Json = dict[str, Any]

EXAMPLE = ROOT / "examples/cluster/karpenter/node-pool.yaml"
POOL = "rollout-gpus"
NAMESPACE, JOB = "lab", "batch"
JOBS = f"/apis/openseer.dev/v1alpha1/namespaces/{NAMESPACE}/rolloutjobs"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PATIENCE_SECONDS = 300.0
"""Timeout of all waits here, in seconds. An empty node is removed about 40 s after its last pod: the pool keeps it for
15 s, and Karpenter checks every ten seconds, and again 15 s later before it acts."""
POLL_SECONDS = 0.5
BEAT_SECONDS = 3.0
"""Interval of a worker's heartbeats, in seconds."""
VERSION = "initial"
TOKENS = 64
"""Number of tokens of every response."""
LEASE_SECONDS = 600.0
GPU_NODE: Json = {
    "name": "one-gpu",
    "architecture": "amd64",
    "operatingSystems": ["linux"],
    "resources": {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "600Gi", "nvidia.com/gpu": "1"},
    "offerings": [
        {
            "Price": 1.0,
            "Available": True,
            "Requirements": [
                {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"]},
            ],
        }
    ],
}
"""The only type of node in the simulated cloud."""


def find_autoscaler() -> Path | None:
    """The folder with Karpenter and its CRDs that cluster/build.sh creates; None if there is none."""
    found = sorted(find_programs().glob("karpenter-*/karpenter-kwok"))
    return found[-1].parent if found else None


@asynccontextmanager
async def node_pools(autoscaler: Path) -> AsyncGenerator["NodePools"]:
    """Starts a control plane with Karpenter and the operator, and ends all of it at the end of the context."""
    with ControlPlane() as plane:
        async with client_of(plane) as client:
            pools = NodePools(plane, client)
            await pools.start(autoscaler)
            yield pools


@dataclass(frozen=True)
class Worker:
    """A worker's pod: its name, its uid and the node that it is on."""

    name: str
    uid: str
    node: str


class NodePools:
    """The control plane with the example's node pool, a node for pods without GPU, and the operator."""

    def __init__(self, plane: ControlPlane, client: Client) -> None:
        self.url = plane.redis
        self._plane = plane
        self._client = client
        self._metrics = free_port()

    async def start(self, autoscaler: Path) -> None:
        """Starts everything except the job."""
        crds = [ROOT / "crds/rolloutjobs.yaml", *sorted((autoscaler / "crds").glob("*.yaml"))]
        for crd in crds:
            await self._client.create_yaml(CRDS, crd.read_text(encoding="utf-8"))
        await self._client.create("/api/v1/namespaces", [_named("openseer"), _named(NAMESPACE)])
        await self._client.create("/api/v1/nodes", [_system_node()])
        await self._client.create("/api/v1/persistentvolumes", [_volume()])
        await self.until("Karpenter's kinds are served", self._kinds_are_served)
        pool, node_class = yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))
        await self._client.create("/apis/karpenter.kwok.sh/v1alpha1/kwoknodeclasses", [node_class])
        await self._client.create("/apis/karpenter.sh/v1/nodepools", [pool])
        types = self._plane.folder / "instance-types.json"
        types.write_text(json.dumps([GPU_NODE]))
        settings = {"DISABLE_LEADER_ELECTION": "true", "METRICS_PORT": "0", "HEALTH_PROBE_PORT": "0"}
        settings |= {"KUBECONFIG": str(self._plane.kubeconfig), "INSTANCE_TYPES_FILE_PATH": str(types)}
        self._plane.start("karpenter", autoscaler / "karpenter-kwok", environment=settings)
        keys = self._plane.folder / "store-keys"
        keys.mkdir()
        (keys / "1").write_text("k" * 64)
        environment = {
            "OPENSEER_STORE_KEYS": str(keys),
            "OPENSEER_STORE_HOSTS": "127.0.0.0/8",
            "KUBECONFIG": str(self._plane.kubeconfig),
            "OPENSEER_NAMESPACE": "openseer",
            "OPENSEER_WORKER_IMAGE": "worker:1",
            "OPENSEER_STORE_IMAGE": "operator:1",
            "OPENSEER_IDENTITY": "pools",
            "OPENSEER_HTTP_PORT": str(self._metrics),
        }
        self._plane.start("operator", sys.executable, "-m", "openseer_operator.main", environment=environment)

    async def submit(self, replicas: int) -> None:
        """Creates the job: a batch whose workers need one GPU each."""
        spec: Json = {
            "model": {"path": "m"},
            "prompts": {"path": "p.jsonl"},
            "store": {"url": self.url},
            "workers": {"replicas": replicas, "resources": {"limits": {"nvidia.com/gpu": 1}}},
        }
        body: Json = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": JOB}}
        await self._client.create(JOBS, [{**body, "spec": spec}])

    # ---- reads

    async def nodes(self) -> set[str]:
        """Names of the pool's nodes."""
        found = await self._client.items("/api/v1/nodes", labelSelector=f"karpenter.sh/nodepool={POOL}")
        return {node["metadata"]["name"] for node in found}

    async def pods(self, role: str = "worker") -> list[Json]:
        """The job's pods of a role."""
        return await self._client.items(PODS, labelSelector=f"openseer.dev/job={JOB},openseer.dev/role={role}")

    async def workers(self) -> list[Worker]:
        """The workers whose pods run, sorted by name."""
        running = [pod for pod in await self.pods() if pod["status"].get("phase") == "Running"]
        found = [
            Worker(
                f"worker-{pod['metadata']['labels']['openseer.dev/worker']}",
                pod["metadata"]["uid"],
                pod["spec"]["nodeName"],
            )
            for pod in running
        ]
        return sorted(found, key=lambda worker: worker.name)

    async def stamped(self) -> set[str]:
        """uids of the pods that Karpenter must not disrupt."""
        return {
            pod["metadata"]["uid"]
            for pod in await self.pods()
            if "karpenter.sh/do-not-disrupt" in pod["metadata"]["annotations"]
        }

    async def status(self) -> Json:
        """The job's status."""
        (job,) = await self._client.items(JOBS)
        return job.get("status") or {}

    async def metric(self, line: str) -> float:
        """A metric of the operator: the value of the line that begins with `line`; 0 without such a line or answer."""
        url = f"http://127.0.0.1:{self._metrics}/metrics"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as reply:
                text = await reply.text()
        except aiohttp.ClientError:
            return 0.0
        return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line)), 0.0)

    async def end_driver(self, counts: BatchProgress) -> None:
        """Ends the driver's pod as after a complete run, with its counts as the termination message."""
        (pod,) = await self.pods("driver")
        ended: Json = {"exitCode": 0, "reason": "Completed", "message": counts.to_json()}
        containers = [
            {**entry, "ready": False, "state": {"terminated": ended}} for entry in pod["status"]["containerStatuses"]
        ]
        status = {"phase": "Succeeded", "containerStatuses": containers}
        await self._client.merge(f"{PODS}/{pod['metadata']['name']}/status", {"status": status})

    async def until(self, event: str, true: Callable[[], Awaitable[bool]]) -> None:
        """Waits until `true` returns True; fails with `event` after PATIENCE_SECONDS."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not await true():
            self._plane.check()
            if time.monotonic() > end:
                logs = "\n".join(self._plane.log_tail(name) for name in ("karpenter", "operator"))
                raise AssertionError(f"not within {PATIENCE_SECONDS:.0f} s: {event}\n{logs}")
            await asyncio.sleep(POLL_SECONDS)

    async def _kinds_are_served(self) -> bool:
        try:
            await self._client.items("/apis/karpenter.kwok.sh/v1alpha1/kwoknodeclasses")
            await self._client.items("/apis/karpenter.sh/v1/nodepools")
            await self._client.items("/apis/karpenter.sh/v1/nodeclaims")
        except RuntimeError:
            return False
        return True


class PlayedBatch:
    """`async with PlayedBatch(url, workers) as batch`: a batch with one request for each worker. Each worker claims its
    request and sends heartbeats."""

    def __init__(self, url: str, workers: list[Worker]) -> None:
        self._url = url
        self._beats = {
            WorkerId(worker.name, "1"): Heartbeat(WorkerState.BUSY, WorkerMetrics({"pod": worker.uid, "inflight": 1}))
            for worker in workers
        }
        self._claims: dict[str, Claim] = {}
        self._store: Store
        self._beating: asyncio.Task[None]

    async def __aenter__(self) -> "PlayedBatch":
        self._store = await open_store(self._url, JOB, NAMESPACE)
        await self._store.submit([_group(ordinal) for ordinal in range(len(self._beats))])
        await self._store.seal(0)
        query = ClaimQuery(
            VERSION,
            (SHARED_LANE,),
            slots=1,
            blocks=10**6,
            layout=whole(16),
            quantum=TOKENS,
            context_tokens=8192,
            lease_seconds=LEASE_SECONDS,
        )
        for worker in self._beats:
            (self._claims[worker.name],) = await self._store.claim(worker, query)
        self._beating = asyncio.create_task(self._beat_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        await self._store.close()

    async def finish(self, name: str, *, idle_seconds: float, busy_seconds: float) -> None:
        """Completes a worker's only request. From then on the worker is idle and reports its idle and busy seconds."""
        claim = self._claims.pop(name)
        worker = WorkerId(name, "1")
        delta = Delta(claim.request, claim.fence, 0, pack_tokens(range(TOKENS)))
        await self._store.complete(worker, [Finish(delta, Status.OK, FinishReason.STOP)])
        before = self._beats[worker]
        self._beats[worker] = replace(
            before, state=WorkerState.IDLE, idle_seconds=idle_seconds, busy_seconds=busy_seconds
        )
        await self._store.heartbeat(worker, self._beats[worker])

    async def leave(self, name: str) -> None:
        """Deregisters a worker whose pod is gone, and ends its heartbeats."""
        del self._beats[WorkerId(name, "1")]
        await self._store.deregister(WorkerId(name, "1"))

    async def progress(self) -> BatchProgress:
        """Progress of the batch."""
        return await self._store.progress(0)

    async def _beat_for_ever(self) -> None:
        while True:
            for worker, beat in list(self._beats.items()):
                await self._store.heartbeat(worker, beat)
            await asyncio.sleep(BEAT_SECONDS)


def _group(ordinal: int) -> GroupSpec:
    return GroupSpec(
        id=GroupId(0, f"prompt-{ordinal}"),
        version=VERSION,
        ordinal=ordinal,
        prompt=pack_tokens(range(8)),
        max_tokens=TOKENS,
        biases=(0.0,),
        lanes=(SHARED_LANE,),
        priority=Priority(base=0.0),
        enqueued_at=0.0,
    )


def _named(name: str) -> Json:
    return {"metadata": {"name": name}}


def _system_node() -> Json:
    """The node on which the driver runs."""
    room = {"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {"name": "system", "labels": {"kubernetes.io/hostname": "system"}},
        "status": {"capacity": room, "allocatable": room},
    }


def _volume() -> Json:
    """The volume for the results; nothing is written to it."""
    return {
        "metadata": {"name": "results"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
        },
    }
