"""The fleet of one job: from the pods there are to those there should be, least work lost first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openseer_core.ids import worker_name
from openseer_core.plan.actions import Action, CreatePod, DeletePod, Stamp
from openseer_core.plan.failures import backoff_until
from openseer_core.plan.observation import Memory, Observation, Pod, PodPhase
from openseer_core.plan.scaling import max_unavailable, template_hash

FORCE_SECONDS = 30.0
"""A pod that is still there so long after its last moment is on a node that does not answer."""


@dataclass(frozen=True, slots=True)
class WorkerPods:
    """One worker: its pod, or the pods of its gang by rank.

    `size`: pods it should have. `held_tokens`: context that would have to be computed again if it went; `busy`: what
    it says itself; `crowd`: workers of this job on its node.
    """

    index: int
    pods: tuple[Pod, ...]
    size: int
    held_tokens: int = 0
    busy: bool = False
    sick: bool = False
    crowd: int = 1

    @property
    def leaving(self) -> bool:
        """Whether any of its pods was asked to go."""
        return any(pod.leaving for pod in self.pods)

    @property
    def ended(self) -> bool:
        """Whether any of its pods is over: a gang ends as one."""
        return any(pod.ended for pod in self.pods)

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return len(self.pods) == self.size and all(pod.ready for pod in self.pods) and not self.leaving

    @property
    def loss(self) -> tuple[bool, int, bool, int, int]:
        """What its going would cost, least first: work, then a start already made, then emptying a node."""
        return self.busy, self.held_tokens, self.ready, self.crowd, -self.index


def workers_of(o: Observation) -> list[WorkerPods]:
    """The workers that have pods, by index."""
    pods: dict[int, list[Pod]] = {}
    crowds: dict[str, set[int]] = {}
    for pod in o.pods:
        if pod.index is not None:
            pods.setdefault(pod.index, []).append(pod)
            crowds.setdefault(pod.node, set()).add(pod.index)
    size = o.job.spec.workers.parallelism.nodes
    return [_worker(o, index, pods[index], size, crowds) for index in sorted(pods)]


def _worker(o: Observation, index: int, pods: list[Pod], size: int, crowds: dict[str, set[int]]) -> WorkerPods:
    reports = [report for report in map(o.report_of, pods) if report is not None]
    return WorkerPods(
        index,
        tuple(sorted(pods, key=lambda pod: pod.rank)),
        size,
        held_tokens=max((report.held_tokens for report in reports), default=0),
        busy=any(report.state == "busy" for report in reports),
        sick=any(report.sick for report in reports),
        crowd=min(len(crowds[pod.node]) for pod in pods),
    )


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What is to be done to the workers, and when to look again (None: nothing is due)."""

    actions: tuple[Action, ...]
    wake_at: float | None = None


def plan_fleet(o: Observation, memory: Memory, desired: int) -> FleetPlan:
    """Towards `desired` workers of today's template."""
    workers = workers_of(o)
    actions = list(_cleared(workers))
    gone = [worker for worker in workers if worker.leaving or worker.ended]
    live = [worker for worker in workers if not worker.leaving and not worker.ended]
    sick = [worker for worker in live if worker.sick]
    for worker in sick:
        actions += _delete(worker, "its GPU is sick")
    live = [worker for worker in live if not worker.sick]
    surplus = sorted(live, key=lambda worker: worker.loss)[: max(0, len(live) - desired)]
    for worker in surplus:
        actions += _delete(worker, f"{desired} workers are wanted")
    live = [worker for worker in live if worker not in surplus]
    drifted = list(_drifted(o, live, desired))
    for worker in drifted:
        actions += _delete(worker, "the job's template changed")
    live = [worker for worker in live if worker not in drifted]
    taken = len(gone) + len(sick) + len(drifted)
    created, wake_at = _created(o, memory, {worker.index for worker in workers}, desired - len(live) - taken)
    actions += [*_made_whole(memory, live), *created, *_stamps(o, workers)]
    return FleetPlan(tuple(actions), wake_at)


def forced(o: Observation) -> tuple[list[Action], float | None]:
    """Pods whose node does not answer are taken off the books, and when the next one may be."""
    actions: list[Action] = []
    wake_at: float | None = None
    for pod in o.pods:
        if pod.gone_by is None:
            continue
        due = pod.gone_by + FORCE_SECONDS
        if o.now >= due:
            actions.append(DeletePod(pod.name, pod.uid, "its node does not answer", force=True))
        else:
            wake_at = due if wake_at is None else min(wake_at, due)
    return actions, wake_at


def _cleared(workers: Sequence[WorkerPods]) -> Iterator[Action]:
    """Whoever lost a rank, or ended, goes whole; the next incarnation takes its place."""
    for worker in workers:
        if worker.ended or worker.leaving:
            yield from _delete(worker, "it ended" if worker.ended else "another rank of its gang leaves")


def _delete(worker: WorkerPods, reason: str) -> list[Action]:
    return [DeletePod(pod.name, pod.uid, reason) for pod in worker.pods if not pod.leaving]


def _drifted(o: Observation, live: Sequence[WorkerPods], desired: int) -> Iterator[WorkerPods]:
    """Workers of an older template that may be replaced now: those that do not work yet, then within the limit."""
    wanted = template_hash(o.job)
    old = sorted((one for one in live if one.pods[0].template != wanted), key=lambda worker: worker.loss)
    ready = sum(worker.ready for worker in live)
    budget = max_unavailable(o.job) - max(0, desired - ready)
    for worker in old:
        if not worker.ready:
            yield worker
        elif budget > 0:
            budget -= 1
            yield worker


def _made_whole(memory: Memory, live: Sequence[WorkerPods]) -> Iterator[Action]:
    """A gang without one of its ranks: what runs of it has lost its link and goes; what has not begun is completed."""
    for worker in live:
        missing = sorted(set(range(worker.size)) - {pod.rank for pod in worker.pods})
        if missing and any(pod.phase is PodPhase.RUNNING for pod in worker.pods):
            yield from _delete(worker, "a rank of its gang is gone")
        else:
            yield from (CreatePod(worker.index, rank, worker.pods[0].attempt, memory.avoid) for rank in missing)


def _created(o: Observation, memory: Memory, occupied: set[int], missing: int) -> tuple[list[Action], float | None]:
    """New workers under the lowest free numbers, each when its back-off is over."""
    actions: list[Action] = []
    wake_at: float | None = None
    index = 0
    while missing > 0:
        if index not in occupied:
            missing -= 1
            failure = memory.failures.get(worker_name(index))
            due = backoff_until(failure)
            if due > o.now:
                wake_at = due if wake_at is None else min(wake_at, due)
            else:
                attempt = failure.attempts if failure is not None else 0
                nodes = o.job.spec.workers.parallelism.nodes
                actions += [CreatePod(index, rank, attempt, memory.avoid) for rank in range(nodes)]
        index += 1
    return actions, wake_at


def _stamps(o: Observation, workers: Sequence[WorkerPods]) -> Iterator[Action]:
    """Autoscalers learn of every turn from idle to busy and back; a worker that leaves is not worth protecting."""
    if o.store is None:
        return
    for worker in workers:
        busy = worker.busy and not worker.leaving and not worker.ended
        for pod in worker.pods:
            if not pod.ended and pod.ready and pod.stamp is not busy:
                yield Stamp(pod.name, pod.uid, busy)
