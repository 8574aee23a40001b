"""The fleet of one job: from the existing pods to the wanted ones, with the least loss of work."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from openseer_core.ids import worker_name
from openseer_core.plan.actions import Action, CreatePod, DeletePod, Stamp
from openseer_core.plan.failures import backoff_until, unremembered
from openseer_core.plan.observation import Memory, Observation, Pod, PodPhase
from openseer_core.plan.scaling import max_unavailable, template_hash
from openseer_core.worker.heartbeat import WorkerState

FORCE_SECONDS = 30.0
"""Time after a pod's grace period, in seconds, after which its node counts as not answering."""
PROTECTED_SECONDS = 4 * 3600.0
"""Time from its start, in seconds, for which a busy pod is protected from node autoscalers."""

MOST_CREATIONS = 256
"""Limit of worker pods that one reconcile step creates, except to complete the last gang; the next step continues."""


@dataclass(frozen=True, slots=True)
class WorkerPods:
    """One worker: its pod, or the pods of its gang by rank.

    `size`: number of its pods when complete. `held_tokens`: context to compute again if it is removed; `busy`: as
    reported; `workers_on_node`: workers of this job on its node.
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
        """Whether any of its pods is being deleted."""
        return any(pod.leaving for pod in self.pods)

    @property
    def ended(self) -> bool:
        """Whether any of its pods has ended: a gang ends as one."""
        return any(pod.ended for pod in self.pods)

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return len(self.pods) == self.size and all(pod.ready for pod in self.pods) and not self.leaving

    @property
    def removal_cost(self) -> tuple[bool, int, bool, int, int]:
        """Sort key of the cost of its removal, least first: work, then a completed start, then emptying a node."""
        return self.busy, self.held_tokens, self.ready, self.workers_on_node, -self.index


def workers_of(observation: Observation) -> list[WorkerPods]:
    """The workers that have pods, by index."""
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
    """Actions on the workers, and when to plan again (None: nothing is due). `waits`: whether missing workers are
    created later."""

    actions: tuple[Action, ...]
    wake_at: float | None = None
    waits: bool = False


def plan_fleet(observation: Observation, memory: Memory, desired: int) -> FleetPlan:
    """Actions towards `desired` workers of the present template."""
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
    """Whether a pod without a node excludes a node that may be used again, and can be replaced."""
    waits = not pod.node and not pod.leaving
    return waits and observation.templates.replaces and not pod.avoids <= set(memory.avoid)


def standing_workers(pods: Iterable[Pod], desired: int) -> int:
    """The wanted workers less those with a known obstacle: an eviction takes work only from these.

    An evicted worker counts until its successor is known to find no room, so workers are evicted one after another.
    """
    held_up = {pod.index for pod in pods if pod.index is not None and pod.is_held_up}
    return max(0, desired - len(held_up))


def forced_deletions(observation: Observation) -> tuple[list[Action], float | None]:
    """Forced deletions of pods whose node does not answer, and when the next one is due."""
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
    """Deletes all pods of a worker that ended or lost a rank; the next incarnation replaces it."""
    for worker in workers:
        if worker.ended or worker.leaving:
            yield from _delete_pods(worker, "it ended" if worker.ended else "another rank of its gang ends")


def _delete_pods(worker: WorkerPods, reason: str) -> list[Action]:
    return [DeletePod(pod.name, pod.uid, reason) for pod in worker.pods if not pod.leaving]


def _replaceable(observation: Observation, live: Sequence[WorkerPods], desired: int) -> Iterator[WorkerPods]:
    """Workers of an older template that may be replaced now: unready ones, then others within the limit."""
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
    """Handles gangs that lack a rank: a running one has lost its link and is deleted, another one is completed."""
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
    """New workers under the lowest free numbers, each after its back-off, while there is `room` for pods."""
    actions: list[Action] = []
    wake_at: float | None = None
    unknown = unremembered(memory.failures)
    index = 0
    while missing > 0:
        if len(actions) >= room:
            # Where Kubernetes refuses some, the others are not urgent.
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
    """Annotates each change between idle and busy for autoscalers; a leaving worker needs no protection."""
    if observation.store is None:
        return
    for worker in workers:
        busy = worker.busy and not worker.leaving and not worker.ended
        for pod in worker.pods:
            protected = busy and is_protected(pod, observation.now)
            if not pod.ended and pod.ready and pod.stamp is not protected:
                yield Stamp(pod.name, pod.uid, protected)


def _protection_ends(observation: Observation, workers: Sequence[WorkerPods]) -> Iterator[float]:
    """Times at which the annotations of busy pods expire."""
    for worker in workers:
        for pod in worker.pods:
            if pod.stamp and pod.started_at is not None and is_protected(pod, observation.now):
                yield pod.started_at + PROTECTED_SECONDS


def is_protected(pod: Pod, now: float) -> bool:
    """Whether node autoscalers are asked not to evict the pod."""
    return pod.started_at is None or now < pod.started_at + PROTECTED_SECONDS
