"""A small model of a cluster for `plan`: a pod starts one tick after its creation and ends one tick after its deletion.
The model applies the actions of a plan and simulates the acts of users and machines."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import manages_store
from openseer_core.plan.actions import (
    Action,
    AddFinalizer,
    Announce,
    ApplyShared,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteStore,
    EndSidecars,
    InspectStore,
    Purge,
    RemoveFinalizer,
    ScaleStore,
    Stamp,
)
from openseer_core.plan.observation import (
    GpuSeconds,
    Memory,
    Observation,
    Pod,
    PodPhase,
    Refusal,
    StoreView,
    TemplateVerdict,
    WorkerReport,
)
from openseer_core.plan.plan import Plan, plan
from openseer_core.plan.scaling import template_hash
from openseer_core.queue.messages import BatchProgress
from openseer_core.worker.heartbeat import WorkerState

TICK = 5.0
SHARED = ("serviceAccount", "config", "storeSecret")


def make_job(**spec: Any) -> RolloutJob:
    """A job on the scripted engine; keyword arguments replace parts of its spec."""
    base: dict[str, Any] = {
        "model": {"path": "none", "engine": "scripted"},
        "prompts": {"path": "prompts.jsonl"},
        "workers": {"replicas": 2},
    }
    document = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "j"}}
    return parse_job(document | {"spec": base | spec}, "test")


def serving(job: RolloutJob) -> RolloutJob:
    """The same job in mode serve: its groups come from a trainer."""
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"] |= {"mode": "serve", "prompts": None}
    return parse_job(document, "test")


@dataclass
class Cluster:
    """One job's part of a cluster, its store and its clock."""

    job: RolloutJob
    now: float = 1000.0
    memory: Memory = field(default_factory=Memory)
    pods: dict[str, Pod] = field(default_factory=dict[str, Pod])
    shared: set[str] = field(default_factory=set[str])
    store_replicas: int | None = None
    room: int = 9999
    store_missing_since: float | None = None
    refusals: tuple[Refusal, ...] = ()
    templates: TemplateVerdict = field(default_factory=TemplateVerdict)
    store_answers: bool = True
    progress: BatchProgress = field(default_factory=BatchProgress)
    worker_speed: float | None = None
    released: bool = False
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)
    busy: dict[str, int] = field(default_factory=dict[str, int])
    sick: dict[str, str] = field(default_factory=dict[str, str])
    dead_nodes: set[str] = field(default_factory=set[str])
    redis: Pod | None = None
    volume_risk: str = ""
    finalizer: bool = False
    deleting_since: float | None = None
    revive: str = ""
    gone: bool = False
    purged: bool = False
    made: int = 0
    nodes: tuple[str, ...] = ("n0", "n1", "n2")

    def observe(self) -> Observation:
        """The operator's observation of the job."""
        serves = self.redis is not None and self.redis.ready
        answers = self.store_answers and (serves or not manages_store(self.job))
        return Observation(
            now=self.now,
            job=self.job,
            memory=self.memory,
            deleting_since=self.deleting_since,
            finalizer=self.finalizer,
            shared={key: key in self.shared for key in SHARED},
            store_replicas=self.store_replicas,
            store_pods=int(self.redis is not None),
            store_missing_since=self.store_missing_since,
            refusals=self.refusals,
            templates=self.templates,
            redis=self.redis,
            volume_risk=self.volume_risk,
            pods=tuple(self.pods.values()),
            store=self._store_view() if answers else None,
            revive=self.revive,
        )

    def _store_view(self) -> StoreView:
        reports = dict(self._reports())
        return StoreView(
            self.progress, reports, self.released, worker_speed=self.worker_speed, gpu_seconds=self.gpu_seconds
        )

    def _reports(self) -> Iterable[tuple[str, WorkerReport]]:
        for pod in self.pods.values():
            if pod.index is not None and pod.rank == 0 and pod.ready:
                tokens = self.busy.get(pod.component, 0)
                state = WorkerState.BUSY if pod.component in self.busy else WorkerState.IDLE
                yield pod.uid, WorkerReport(pod.index, pod.uid, state, tokens, self.sick.get(pod.component, ""))

    def step(self) -> Plan:
        """One reconcile step of the operator: plans, keeps the memory, applies the actions."""
        decided = plan(self.observe())
        self.memory = decided.memory
        self.refusals = decided.refused
        for action in decided.actions:
            self.apply(action)
        return decided

    def tick(self) -> None:
        """Advances the clock by one tick: leaving pods are removed, pending pods start."""
        self.now += TICK
        for pod in list(self.pods.values()):
            if pod.node in self.dead_nodes:
                continue
            if pod.leaving:
                del self.pods[pod.name]
                self.busy.pop(pod.component, None)
                self.sick.pop(pod.component, None)
            elif pod.phase is PodPhase.PENDING and not pod.unschedulable:
                self.pods[pod.name] = replace(
                    pod, phase=PodPhase.RUNNING, ready=True, node=self._assign_node(pod), start_seconds=TICK
                )

    def _assign_node(self, pod: Pod) -> str:
        avoided = {sick.node for sick in self.memory.sick_nodes}
        allowed = [node for node in self.nodes if node not in self.dead_nodes | avoided] or ["n9"]
        return allowed[((pod.index or 0) + pod.rank) % len(allowed)]

    def apply(self, action: Action) -> None:
        """Applies one action as the API server would."""
        match action:
            case CreatePod():
                self._create(action)
            case DeletePod():
                self._delete(action)
            case EndSidecars(name):
                self.pods[name] = replace(self.pods[name], lingers=False)
            case Stamp():
                self._stamp(action)
            case ApplyShared(key):
                self.shared.add(key)
            case ScaleStore(replicas):
                self.store_replicas = replicas
                self.place_store()
            case DeleteStore():
                self.store_replicas = None
                self.place_store()
            case _:
                self._apply_to_job(action)

    def _apply_to_job(self, action: Action) -> None:
        match action:
            case AddFinalizer():
                self.finalizer = True
            case RemoveFinalizer():
                self.finalizer = False
                self.gone = self.deleting_since is not None
            case Purge():
                self.purged = True
            case DeleteJob():
                self.gone = True
            case InspectStore():
                self._refuse("StatefulSet", "j-redis")
            case _:
                assert isinstance(action, Announce)

    def _stamp(self, action: Stamp) -> None:
        if self.redis is not None and action.uid == self.redis.uid:
            self.redis = replace(self.redis, stamp=action.busy)
        else:
            self.pods[action.name] = replace(self.pods[action.name], stamp=action.busy)

    def _delete(self, action: DeletePod) -> None:
        if self.redis is not None and action.uid == self.redis.uid:
            self.redis = None
            self.place_store()
            return
        pod = self.pods[action.name]
        assert pod.uid == action.uid
        if action.force or not pod.node or (pod.ended and not pod.lingers):
            del self.pods[action.name]
        else:
            self.pods[action.name] = replace(pod, gone_by=self.now + 60)

    def _create(self, action: CreatePod) -> None:
        nodes = self.job.spec.workers.parallelism.nodes
        name = "j-driver" if action.index is None else f"j-worker-{action.index}"
        name += f"-{action.rank}" if nodes > 1 and action.index is not None else ""
        assert name not in self.pods, f"{name} exists already"
        if len(self.pods) + (self.redis is not None) >= self.room:
            self._refuse("Pod", name)
            return
        self.made += 1
        self.pods[name] = Pod(
            name,
            f"u{self.made}",
            action.index,
            action.rank,
            template=template_hash(self.job),
            attempt=action.attempt,
            stamp=False,
            avoids=frozenset(action.avoid),
        )

    def _refuse(self, kind: str, name: str) -> None:
        self.refusals = (*self.refusals, Refusal(kind, name, "exceeded quota"))

    def place_store(self) -> None:
        """Makes or removes the managed Redis's pod at once if there is room, as the StatefulSet's controller does."""
        wanted = self.store_replicas == 1
        if self.redis is None and wanted and len(self.pods) < self.room:
            self.redis = Pod("j-redis-0", f"r{self.now:.0f}", None, phase=PodPhase.RUNNING, ready=True, stamp=True)
        elif self.redis is not None and not wanted and not self.redis.leaving:
            self.redis = None
        self.store_missing_since = self.now if wanted and self.redis is None else None

    # ---- acts of users and machines

    def change(self, **spec: Any) -> None:
        """Replaces parts of the spec, as `kubectl apply` would; `workers` is merged."""
        document = self.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        workers = document["spec"]["workers"] | spec.pop("workers", {})
        document["spec"] |= spec | {"workers": workers}
        self.job = parse_job(document, "test")

    def end(
        self, name: str, code: int, message: str = "", *, disrupted: bool = False, beside_sidecar: bool = False
    ) -> None:
        """Ends a pod's process. `disrupted`: its node ended it; `beside_sidecar`: a sidecar of the pod runs on."""
        self.pods[name] = replace(
            self.pods[name],
            phase=PodPhase.FAILED if code else PodPhase.SUCCEEDED,
            ready=False,
            exit_code=code,
            message=message,
            lingers=beside_sidecar,
            conditions=frozenset({("DisruptionTarget", "True")} if disrupted else ()),
        )
        self.busy.pop(self.pods[name].component, None)

    def refuse(self, name: str, node: str, reason: str) -> None:
        """The kubelet of the node to which a pod was bound refuses the pod."""
        self.pods[name] = replace(
            self.pods[name], phase=PodPhase.FAILED, ready=False, node=node, problem=reason, refused=True
        )

    @property
    def moves(self) -> bool:
        """Whether the next tick starts or removes a pod."""
        return any(
            pod.leaving or (pod.phase is PodPhase.PENDING and not pod.unschedulable)
            for pod in self.pods.values()
            if pod.node not in self.dead_nodes
        )

    def live_workers(self) -> list[Pod]:
        """Pods of workers that are neither leaving nor ended."""
        return [pod for pod in self.pods.values() if pod.index is not None and not pod.leaving and not pod.ended]
