"""What follows from how the pods of a job ended: restarts counted, nodes avoided, the job's own end.

The failure policy follows that of batch/v1 Jobs: the first matching rule of the user decides; then what is known of
infrastructure; the rest counts against the component's restart budget.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from openseer_core.errors import GpuSickError
from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import (
    DRIVER,
    Ending,
    Failure,
    JobOutcome,
    Memory,
    Observation,
    Pod,
    PodPhase,
    SickNode,
)
from openseer_core.queue.messages import BatchProgress

FIRST_BACKOFF_SECONDS = 0.5
MOST_BACKOFF_SECONDS = 120.0
QUIET_SECONDS = 600.0
"""A component that ran for so long starts its back-off anew."""
MOST_SICK_NODES = 16
"""Nodes remembered as sick; the oldest are forgotten."""
LONGEST_MESSAGE = 1024
"""Characters of a pod's termination message that go into a status."""
DISRUPTED = ("DisruptionTarget", "True")
_FAIL_JOB = {2: "InvalidInput", 5: "StoreLost", 6: "AuditFailed"}
"""Exit codes (openseer_core.errors) that no repeat can mend."""


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """The new memory after an observation, and the events that a person reads."""

    memory: Memory
    events: tuple[Announce, ...] = ()


def update_memory(observation: Observation) -> MemoryUpdate:
    """The memory after this observation. That of a job that has ended changes no more."""
    memory = replace(observation.memory, progress=_final_progress(observation) or observation.progress)
    if memory.ending is not None:
        return MemoryUpdate(memory)
    memory, events = _update_start(observation, memory)
    ending = _completion(observation, memory) or _deadline_exceeded(observation, memory)
    if ending is None and not observation.job.spec.suspend:
        memory, ending, ended = _count_failures(observation, memory)
        memory, sick = _update_sick_nodes(observation, memory)
        events += ended + sick
    if ending is not None:
        memory = replace(memory, ending=ending)
        events.append(Announce(ending.outcome is JobOutcome.FAILED, ending.reason, ending.message))
    return MemoryUpdate(memory, tuple(events))


def backoff_until(failure: Failure | None) -> float:
    """When the next incarnation of a component may start (seconds since the epoch)."""
    if failure is None or not failure.streak:
        return 0.0
    return failure.at + min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failure.streak - 1, 30), MOST_BACKOFF_SECONDS)


def _update_start(observation: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """The deadline counts while the job is not suspended, as that of a batch/v1 Job does."""
    if observation.job.spec.suspend:
        if memory.suspended:
            return memory, []
        return replace(memory, suspended=True, started_at=None), [
            Announce(False, "Suspended", "workers hand back what they run; then no pod is left")
        ]
    if memory.started_at is not None:
        return memory, []
    reason = "Resumed" if memory.suspended else "Started"
    return replace(memory, suspended=False, started_at=observation.now), [
        Announce(False, reason, f"{observation.job.spec.workers.replicas} workers wanted")
    ]


def _final_progress(observation: Observation) -> BatchProgress | None:
    """The counts in the termination message of a driver that is done: its store may be gone by now."""
    done = (pod for pod in observation.pods if pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED)
    return next(filter(None, (BatchProgress.from_json(pod.message) for pod in done)), None)


def _completion(observation: Observation, memory: Memory) -> Ending | None:
    if any(pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED for pod in observation.pods):
        counts = memory.progress
        return Ending(
            JobOutcome.COMPLETE,
            "AllReported",
            f"{counts.closed} of {counts.requests} responses written",
            observation.now,
        )
    return None


def _deadline_exceeded(observation: Observation, memory: Memory) -> Ending | None:
    limit = observation.job.spec.active_deadline_seconds
    if limit is None or memory.started_at is None or observation.now < memory.started_at + limit:
        return None
    return Ending(
        JobOutcome.FAILED,
        "DeadlineExceeded",
        f"spec.activeDeadlineSeconds: {limit} s have passed; see the results",
        observation.now,
    )


def _count_failures(observation: Observation, memory: Memory) -> tuple[Memory, Ending | None, list[Announce]]:
    """Counts every incarnation that ended unasked once."""
    failures = dict(memory.failures)
    events: list[Announce] = []
    for component, pods in _ended_incarnations(observation, memory):
        known = failures.get(component, Failure())
        size = 1 if component == DRIVER else observation.job.spec.workers.parallelism.nodes
        counted, reason, fatal = _judge(observation.job, pods, size)
        quiet = observation.now - known.at > QUIET_SECONDS
        failures[component] = failure = Failure(
            known.count + counted, known.attempts + 1, 1 if quiet else known.streak + 1, reason, observation.now
        )
        budget = _budget(observation.job, component)
        if not fatal and failure.count > budget:
            fatal, reason = "RestartsExhausted", f"failed {failure.count} times, {budget} are allowed; last: {reason}"
        if fatal:
            ending = Ending(JobOutcome.FAILED, fatal, f"{component}: {reason}", observation.now)
            return replace(memory, failures=failures), ending, events
        counting = f"failure {failure.count} of {budget} allowed" if counted else "not counted as a failure"
        events.append(Announce(bool(counted), "MemberEnded", f"{component}: {reason} ({counting})"))
    return replace(memory, failures=failures), None, events


def _ended_incarnations(observation: Observation, memory: Memory) -> Iterator[tuple[str, list[Pod]]]:
    """Components whose present incarnation ended although nobody asked it to."""
    present: dict[str, list[Pod]] = {}
    for pod in observation.pods:
        attempts = memory.failures.get(pod.component, Failure()).attempts
        if pod.attempt >= attempts:
            present.setdefault(pod.component, []).append(pod)
    for component, pods in present.items():
        if any(pod.ended and not pod.leaving for pod in pods):
            yield component, pods


def _judge(job: RolloutJob, pods: Sequence[Pod], size: int) -> tuple[int, str, str]:
    """Whether it counts (0 or 1), why it ended, and the reason when the whole job has to fail for it."""
    failed = [pod for pod in pods if pod.phase is PodPhase.FAILED and not pod.leaving]
    if not failed:
        return 0, "left by itself", ""
    sick = next((pod for pod in failed if pod.exit_code == GpuSickError.exit_code), None)
    if sick is not None:
        return 0, _end_reason(sick), ""
    # Of a gang, most ranks end because another did: the pod without the usual exit code says most.
    pod = max(
        failed, key=lambda candidate: (bool(candidate.message), candidate.exit_code not in (None, 7), -candidate.rank)
    )
    reason = _end_reason(pod)
    action = next(filter(None, (_rule_action(job, candidate) for candidate in failed)), None)
    if action == "FailJob":
        return 1, reason, "FailurePolicy"
    if action is not None:
        return int(action == "Count"), reason, ""
    if pod.exit_code in _FAIL_JOB:
        return 1, reason, _FAIL_JOB[pod.exit_code]
    return int(not _is_infrastructure(pods, size)), reason, ""


def _rule_action(job: RolloutJob, pod: Pod) -> str | None:
    """The action of the first rule of the user that matches."""
    for rule in job.spec.failure_policy.rules:
        codes = rule.on_exit_codes
        if codes is not None:
            listed = pod.exit_code in codes.values
            if pod.exit_code and listed == (codes.operator == "In"):
                return rule.action
        elif any((condition.type, condition.status) in pod.conditions for condition in rule.on_pod_conditions or ()):
            return rule.action
    return None


def _is_infrastructure(pods: Sequence[Pod], size: int) -> bool:
    """Evicted, taken away, or never run: no process of ours is to blame. A gang that lost a rank so is not, either."""
    if len(pods) < size or any(pod.leaving or DISRUPTED in pod.conditions for pod in pods):
        return True
    return all(pod.exit_code is None for pod in pods if pod.phase is PodPhase.FAILED)


def _end_reason(pod: Pod) -> str:
    cause = pod.problem or (f"exit code {pod.exit_code}" if pod.exit_code is not None else "its node ended it")
    return f"{cause}: {pod.message.strip()}"[:LONGEST_MESSAGE] if pod.message.strip() else cause[:LONGEST_MESSAGE]


def _budget(job: RolloutJob, component: str) -> int:
    policy = job.spec.failure_policy
    return policy.driver_restarts if component == DRIVER else policy.worker_restarts


def _update_sick_nodes(observation: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """Remembers nodes whose GPUs a worker reported sick, in a heartbeat or in its termination message."""
    nodes = {sick.node: sick for sick in memory.sick_nodes}
    events: list[Announce] = []
    for pod in observation.pods:
        fault = _gpu_fault(observation, pod)
        # The leader of a gang reports for all its ranks: where it means another rank, the message begins with its node.
        gang = (other for other in observation.pods if other.index == pod.index)
        node = next((other.node for other in gang if fault.startswith(f"{other.node} ")), pod.node)
        if not fault or not node or node in nodes:
            continue
        nodes[node] = SickNode(node, pod.component, fault[:LONGEST_MESSAGE], observation.now)
        message = f"{pod.component} on node {node} reports {fault}; it is replaced on another node"
        events.append(Announce(True, "GpuSick", message, node=node))
    newest = sorted(nodes.values(), key=lambda sick: sick.at)[-MOST_SICK_NODES:]
    return replace(memory, sick_nodes=tuple(newest)), events


def _gpu_fault(observation: Observation, pod: Pod) -> str:
    """Why the GPU under a worker's pod should not be used, "" when no fault is known."""
    if pod.exit_code == GpuSickError.exit_code:
        return pod.message.removeprefix("error: ").strip() or "a sick GPU"
    report = observation.report_of(pod)
    return report.sick if report is not None else ""
