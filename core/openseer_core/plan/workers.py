"""Plans the fleet of one job: the actions from the existing pods to the wanted ones, with the least loss of work."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from openseer_core.ids import worker_name
from openseer_core.plan.actions import Action, CreatePod, DeletePod, Stamp
from openseer_core.plan.failures import backoff_until, unremembered
from openseer_core.plan.observation import Memory, Observation, Pod, PodPhase
from openseer_core.plan.scaling import max_unavailable, template_hash
from openseer_core.worker.heartbeat import WorkerState

FORCE_SECONDS = 30.0
"""Time after the end of a pod's grace period, in seconds, after which its node counts as not answering."""
PROTECTED_SECONDS = 4 * 3600.0
"""Time after its start, in seconds, for which a busy pod is protected from node autoscalers."""

MOST_CREATIONS = 256
"""Limit of worker pods that one reconcile step creates; it is exceeded only to complete the last gang."""


@dataclass(frozen=True, slots=True)
class WorkerPods:
    """One worker: its pod, or the pods of its gang in the order of ranks.

    `size`: number of its pods when it is complete; `held_tokens`: context tokens to compute again if it is removed;
    `busy`, `sick`: whether it reports requests, or a sick GPU; `workers_on_node`: number of workers of this job on its
    node (in a gang, the smallest number of its nodes).
    """

    index: int
    pods: tuple[Pod, ...]
    size: int
    held_tokens: int = 0
    busy: bool = False
    sick: bool = False
    workers_on_node: int = 1

    @property
    def leaving(self) -> bool:
        """Whether any of the worker's pods is being deleted."""
        return any(pod.leaving for pod in self.pods)

    @property
    def ended(self) -> bool:
        """Whether any of the worker's pods has ended; a gang ends as a whole."""
        return any(pod.ended for pod in self.pods)

    @property
    def ready(self) -> bool:
        """Whether the worker takes requests: all its pods exist, are ready, and stay."""
        return len(self.pods) == self.size and all(pod.ready for pod in self.pods) and not self.leaving

    @property
    def removal_cost(self) -> tuple[bool, int, bool, int, int]:
        """Sort key, lowest cost first: lost work, then a lost start, then the number of workers on the node."""
        return self.busy, self.held_tokens, self.ready, self.workers_on_node, -self.index


def workers_of(observation: Observation) -> list[WorkerPods]:
    """The workers with pods, in the order of their numbers."""
    pods: dict[int, list[Pod]] = {}
    indices_by_node: dict[str, set[int]] = {}
    for pod in observation.pods:
        if pod.index is not None:
            pods.setdefault(pod.index, []).append(pod)
            indices_by_node.setdefault(pod.node, set()).add(pod.index)
    size = observation.job.spec.workers.parallelism.nodes
    return [_worker(observation, index, pods[index], size, indices_by_node) for index in sorted(pods)]


def _worker(
    observation: Observation, index: int, pods: list[Pod], size: int, indices_by_node: dict[str, set[int]]
) -> WorkerPods:
    reports = [report for report in map(observation.report_of, pods) if report is not None]
    return WorkerPods(
        index,
        tuple(sorted(pods, key=lambda pod: pod.rank)),
        size,
        held_tokens=max((report.held_tokens for report in reports), default=0),
        busy=any(report.state is WorkerState.BUSY for report in reports),
        sick=any(report.sick for report in reports),
        workers_on_node=min(len(indices_by_node[pod.node]) for pod in pods),
    )


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """Actions on the workers. `wake_at`: time of the next plan without an event (seconds since the epoch), None for
    none; `waits`: whether missing workers are created later."""

    actions: tuple[Action, ...]
    wake_at: float | None = None
    waits: bool = False


def plan_fleet(observation: Observation, memory: Memory, desired: int) -> FleetPlan:
    """The actions that lead to `desired` workers of the present template."""
    workers = workers_of(observation)
    actions = list(_delete_ended(workers))
    going = [worker for worker in workers if worker.leaving or worker.ended]
    live = [worker for worker in workers if not worker.leaving and not worker.ended]
    sick = [worker for worker in live if worker.sick and any(pod.node in memory.avoid for pod in worker.pods)]
    for worker in sick:
        actions += _delete_pods(worker, "its GPU is sick")
    outdated = [worker for worker in live if any(avoids_in_vain(observation, pod, memory) for pod in worker.pods)]
    for worker in outdated:
        actions += _delete_pods(worker, "a node that it avoids can be used again")
    live = [worker for worker in live if worker not in sick and worker not in outdated]
    surplus = sorted(live, key=lambda worker: worker.removal_cost)[: max(0, len(live) - desired)]
    for worker in surplus:
        actions += _delete_pods(worker, f"{desired} workers are wanted")
    live = [worker for worker in live if worker not in surplus]
    drifted = list(_replaceable(observation, live, desired)) if observation.templates.replaces else []
    for worker in drifted:
        actions += _delete_pods(worker, "the job's template changed")
    live = [worker for worker in live if worker not in drifted]
    taken = len(going) + len(sick) + len(outdated) + len(drifted)
    completed = list(_complete_gangs(memory, live))
    room = MOST_CREATIONS - sum(isinstance(action, CreatePod) for action in completed)
    created, wake_at = _create_workers(
        observation, memory, {worker.index for worker in workers}, desired - len(live) - taken, room
    )
    actions += [*completed, *created, *_stamps(observation, workers)]
    ends = [*_protection_ends(observation, workers), *([wake_at] if wake_at is not None else [])]
    return FleetPlan(tuple(actions), min(ends, default=None), waits=wake_at is not None)


def avoids_in_vain(observation: Observation, pod: Pod, memory: Memory) -> bool:
    """Whether a pod that waits for a node excludes a node that may be used again, and may be replaced."""
    waits = not pod.node and not pod.leaving
    return waits and observation.templates.replaces and not pod.avoids <= set(memory.avoid)


def standing_workers(pods: Iterable[Pod], desired: int) -> int:
    """The wanted workers minus those with a known obstacle to their start: the number that the PodDisruptionBudget
    counts.

    A worker with an obstacle has no work that an eviction could take. An evicted worker counts until its successor is
    known to find no room, so workers are evicted one after another.
    """
    held_up = {pod.index for pod in pods if pod.index is not None and pod.is_held_up}
    return max(0, desired - len(held_up))


def forced_deletions(observation: Observation) -> tuple[list[Action], float | None]:
    """Forced deletions of pods on nodes that do not answer, and the time of the next one (None for none)."""
    actions: list[Action] = []
    wake_at: float | None = None
    for pod in observation.pods:
        if pod.gone_by is None:
            continue
        due = pod.gone_by + FORCE_SECONDS
        if observation.now >= due:
            actions.append(DeletePod(pod.name, pod.uid, "its node does not answer", force=True))
        else:
            wake_at = due if wake_at is None else min(wake_at, due)
    return actions, wake_at


def _delete_ended(workers: Sequence[WorkerPods]) -> Iterator[Action]:
    """Deletes all pods of each worker that has ended or has a leaving rank; the next incarnation replaces it."""
    for worker in workers:
        if worker.ended or worker.leaving:
            yield from _delete_pods(worker, "it ended" if worker.ended else "another rank of its gang ends")


def _delete_pods(worker: WorkerPods, reason: str) -> list[Action]:
    return [DeletePod(pod.name, pod.uid, reason) for pod in worker.pods if not pod.leaving]


def _replaceable(observation: Observation, live: Sequence[WorkerPods], desired: int) -> Iterator[WorkerPods]:
    """The workers of an older template that may be replaced now: all unready ones, and ready ones within the limit."""
    template = template_hash(observation.job)
    old = sorted(
        (worker for worker in live if worker.pods[0].template != template), key=lambda worker: worker.removal_cost
    )
    ready = sum(worker.ready for worker in live)
    budget = max_unavailable(observation.job) - max(0, desired - ready)
    for worker in old:
        if not worker.ready:
            yield worker
        elif budget > 0:
            budget -= 1
            yield worker


def _complete_gangs(memory: Memory, live: Sequence[WorkerPods]) -> Iterator[Action]:
    """Handles gangs that lack a rank. A gang with running pods has lost its connections, and is deleted; any other gang
    is completed."""
    created = 0
    for worker in live:
        missing = sorted(set(range(worker.size)) - {pod.rank for pod in worker.pods})
        if missing and any(pod.phase is PodPhase.RUNNING for pod in worker.pods):
            yield from _delete_pods(worker, "a rank of its gang has ended")
        elif created < MOST_CREATIONS:
            created += len(missing)
            yield from (CreatePod(worker.index, rank, worker.pods[0].attempt, memory.avoid) for rank in missing)


def _create_workers(
    observation: Observation, memory: Memory, occupied: set[int], missing: int, room: int
) -> tuple[list[Action], float | None]:
    """Creates missing workers under the lowest free numbers, each after its back-off. `room`: number of pods after
    which it creates no further worker. Also returns the time of the next creation, None for none."""
    actions: list[Action] = []
    wake_at: float | None = None
    unknown = unremembered(memory.failures)
    index = 0
    while missing > 0:
        if len(actions) >= room:
            # If Kubernetes refuses some pods, the others are not urgent.
            return actions, wake_at if observation.refusals else observation.now
        if index not in occupied:
            missing -= 1
            failure = memory.failures.get(worker_name(index), unknown)
            due = backoff_until(failure)
            if due > observation.now:
                wake_at = due if wake_at is None else min(wake_at, due)
            else:
                nodes = observation.job.spec.workers.parallelism.nodes
                actions += [CreatePod(index, rank, failure.attempts, memory.avoid) for rank in range(nodes)]
        index += 1
    return actions, wake_at


def _stamps(observation: Observation, workers: Sequence[WorkerPods]) -> Iterator[Action]:
    """Stamps each pod that has changed between idle and busy. A leaving worker needs no protection."""
    if observation.store is None:
        return
    for worker in workers:
        busy = worker.busy and not worker.leaving and not worker.ended
        for pod in worker.pods:
            protected = busy and is_protected(pod, observation.now)
            if not pod.ended and pod.ready and pod.stamp is not protected:
                yield Stamp(pod.name, pod.uid, protected)


def _protection_ends(observation: Observation, workers: Sequence[WorkerPods]) -> Iterator[float]:
    """The times at which the protection of busy pods ends."""
    for worker in workers:
        for pod in worker.pods:
            if pod.stamp and pod.started_at is not None and is_protected(pod, observation.now):
                yield pod.started_at + PROTECTED_SECONDS


def is_protected(pod: Pod, now: float) -> bool:
    """Whether a busy pod is still protected from node autoscalers."""
    return pod.started_at is None or now < pod.started_at + PROTECTED_SECONDS
