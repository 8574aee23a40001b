"""Evaluates ended pods: counts restarts, remembers nodes to avoid, and ends the job if a limit is exceeded.

The failure policy resembles that of batch/v1 Jobs. The first matching case decides: an accepted report of a sick GPU
(not counted); a rule of the user; an exit code that a restart cannot cure (the job fails); an infrastructure failure
(not counted); any other failure counts against the component's restart budget.
"""

from collections.abc import Mapping, Sequence
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
from openseer_core.plan.revival import DEADLINE_EXCEEDED, RESTARTS_EXHAUSTED, revive
from openseer_core.queue.messages import BatchProgress

FIRST_BACKOFF_SECONDS = 0.5
"""Back-off after the first end of a component, in seconds; it doubles with each further end in quick succession."""
MOST_BACKOFF_SECONDS = 120.0
"""Limit of the back-off, in seconds."""
QUIET_SECONDS = 600.0
"""Time since a component's last end, in seconds, after which its back-off starts again from the first one."""
MOST_FAILED_MEMBERS = 256
"""Limit of components with remembered failures. Beyond it those with the lowest counts are forgotten, and of equal
counts the oldest."""
LONGEST_REASON = 256
"""Limit of the reason remembered of each component, in characters."""
MOST_SICK_NODES = 16
"""Limit of remembered sick nodes, and of remembered nodes that refused a pod; the oldest are forgotten."""
SICK_WINDOW_SECONDS = 86400.0
"""Window, in seconds, in which MOST_SICK_NODES reports of sick nodes are accepted; further ends count as failures."""
GPU_SICK = "GpuSick"
"""Reason of the event on a node that a job reports as sick."""
REFUSAL_SECONDS = 600.0
"""Time for which a node that refused a pod is avoided, in seconds."""
LONGEST_MESSAGE = 1024
"""Limit of a pod's termination message in a status, in characters."""
DISRUPTED = ("DisruptionTarget", "True")
FAIL_JOB = {2: "InvalidInput", 5: "StoreLost", 6: "AuditFailed"}
"""Reasons of a failed job by the exit codes (openseer_core.errors) that a restart cannot cure."""


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """The new memory after an observation, the events for users, and the components with an unrequested end."""

    memory: Memory
    events: tuple[Announce, ...] = ()
    ended: tuple[str, ...] = ()


def update_memory(observation: Observation) -> MemoryUpdate:
    """The memory after this observation. An ended job keeps its end, unless it is revived."""
    progress = _final_progress(observation) or observation.progress
    memory = replace(observation.memory, progress=progress, gpu_seconds=observation.gpu_seconds)
    memory, revived = revive(observation, memory)
    if memory.ending is not None:
        return MemoryUpdate(memory)
    memory, events = _update_start(observation, memory)
    events = [*revived, *events]
    ending = _completion(observation, memory) or _deadline_exceeded(observation, memory)
    ended: Mapping[str, list[Pod]] = {}
    if ending is None and not observation.job.spec.suspend:
        ended = _ended_incarnations(observation, memory)
        memory, ending, counted = _count_failures(observation, memory, ended)
        memory, sick = _update_sick_nodes(observation, memory)
        events += counted + sick
    if ending is not None:
        memory = replace(memory, ending=ending)
        events.append(Announce(ending.outcome is JobOutcome.FAILED, ending.reason, ending.message))
    return MemoryUpdate(memory, tuple(events), tuple(ended))


def backoff_until(failure: Failure | None) -> float:
    """Time of the earliest start of the next incarnation of a component (seconds since the epoch), 0 for at once."""
    if failure is None or not failure.streak:
        return 0.0
    return failure.at + min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failure.streak - 1, 30), MOST_BACKOFF_SECONDS)


def unremembered(failures: Mapping[str, Failure]) -> Failure:
    """The record of a component that is not in `failures`. If the memory is full, its failures may have been forgotten:
    then it gets the longest back-off in `failures`."""
    if len(failures) < MOST_FAILED_MEMBERS:
        return Failure()
    longest = max(failures.values(), key=backoff_until)
    return Failure(streak=longest.streak, at=longest.at)


def _update_start(observation: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """Starts or stops the time of the deadline. As in a batch/v1 Job, it does not run while the job is suspended."""
    if observation.job.spec.suspend:
        if memory.suspended:
            return memory, []
        return replace(memory, suspended=True, started_at=None), [
            Announce(False, "Suspended", "workers give back their requests; then all pods are deleted")
        ]
    if memory.started_at is not None or not observation.templates.makes:
        return memory, []
    reason = "Resumed" if memory.suspended else "Started"
    return replace(memory, suspended=False, started_at=observation.now), [
        Announce(False, reason, f"{observation.job.spec.workers.replicas} workers wanted")
    ]


def _final_progress(observation: Observation) -> BatchProgress | None:
    """The counts in the termination message of a finished driver; the store may be deleted already."""
    done = (pod for pod in observation.pods if pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED)
    return next(filter(None, (BatchProgress.from_json(pod.message) for pod in done)), None)


def _completion(observation: Observation, memory: Memory) -> Ending | None:
    if any(pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED for pod in observation.pods):
        counts = memory.progress
        failed = (
            f", {counts.infra_failed} of them failed: report.json contains the reasons" if counts.infra_failed else ""
        )
        return Ending(
            JobOutcome.COMPLETE,
            "AllReported",
            f"{counts.closed} of {counts.requests} responses written{failed}",
            observation.now,
        )
    return None


def _deadline_exceeded(observation: Observation, memory: Memory) -> Ending | None:
    limit = observation.job.spec.active_deadline_seconds
    if limit is None or memory.started_at is None or observation.now < memory.started_at + limit:
        return None
    return Ending(
        JobOutcome.FAILED,
        DEADLINE_EXCEEDED,
        f"spec.activeDeadlineSeconds: {limit} s have passed; see the results",
        observation.now,
    )


def _count_failures(
    observation: Observation, memory: Memory, ended: Mapping[str, Sequence[Pod]]
) -> tuple[Memory, Ending | None, list[Announce]]:
    """Counts each incarnation with an unrequested end once. `ended`: its pods by component."""
    failures, unknown = {**memory.failures}, unremembered(memory.failures)
    events: list[Announce] = []
    for component, pods in ended.items():
        known = _decayed(failures.get(component, unknown), observation)
        size = 1 if component == DRIVER else observation.job.spec.workers.parallelism.nodes
        counted, reason, fatal = _judge(observation, memory, pods, size)
        quiet = observation.now - known.at > QUIET_SECONDS
        failures[component] = failure = Failure(
            known.count + counted,
            # One more than the pod's number, because the memory's number may have been forgotten.
            max(pod.attempt for pod in pods) + 1,
            1 if quiet else known.streak + 1,
            reason[:LONGEST_REASON],
            observation.now,
            known.since if known.count else observation.now,
        )
        budget = _budget(observation.job, component)
        if not fatal and failure.count > budget:
            fatal, reason = RESTARTS_EXHAUSTED, f"failed {failure.count} times, {budget} are allowed; last: {reason}"
        if fatal:
            ending = Ending(JobOutcome.FAILED, fatal, f"{component}: {reason}", observation.now)
            # `revive` needs the record, to find out whether the limit was raised.
            return replace(memory, failures=_weightiest(failures, component)), ending, events
        counting = f"failure {failure.count} of {budget} allowed" if counted else "not counted as a failure"
        events.append(Announce(bool(counted), "MemberEnded", f"{component}: {reason} ({counting})"))
    return replace(memory, failures=_weightiest(failures)), None, events


def _decayed(failure: Failure, observation: Observation) -> Failure:
    """The record without the failures that the failure policy has forgotten by now."""
    policy = observation.job.spec.failure_policy
    count, since = policy.remembered(failure.count, failure.since, observation.now)
    return replace(failure, count=count, since=since)


def _weightiest(failures: Mapping[str, Failure], kept: str = "") -> Mapping[str, Failure]:
    """The failures to remember, always with `kept`. A forgotten component has a new budget (see `unremembered`)."""
    if len(failures) <= MOST_FAILED_MEMBERS:
        return failures
    by_weight = sorted(failures, key=lambda name: (name == kept, failures[name].count, failures[name].at, name))
    return {name: failures[name] for name in by_weight[-MOST_FAILED_MEMBERS:]}


def _ended_incarnations(observation: Observation, memory: Memory) -> dict[str, list[Pod]]:
    """The pods of the present incarnation of each component that has ended without a request of the operator."""
    present: dict[str, list[Pod]] = {}
    for pod in observation.pods:
        attempts = memory.failures.get(pod.component, Failure()).attempts
        if pod.attempt >= attempts:
            present.setdefault(pod.component, []).append(pod)
    ended = (component for component, pods in present.items() if any(pod.ended and not pod.leaving for pod in pods))
    return {component: present[component] for component in ended}


def _judge(observation: Observation, memory: Memory, pods: Sequence[Pod], size: int) -> tuple[int, str, str]:
    """Whether the end counts (0 or 1), its cause, and the reason if the whole job fails, else ""."""
    job = observation.job
    failed = [pod for pod in pods if pod.phase is PodPhase.FAILED and not pod.leaving]
    if not failed:
        return 0, "ended by itself", ""
    sick = next((pod for pod in failed if pod.exit_code == GpuSickError.exit_code), None)
    if sick is not None and _believes(observation, memory, sick.node):
        return 0, _end_reason(sick), ""
    # In a gang most ranks end because another rank has ended: the pod without the usual exit code (7) shows the cause.
    pod = max(
        failed, key=lambda candidate: (bool(candidate.message), candidate.exit_code not in (None, 7), -candidate.rank)
    )
    reason = _end_reason(pod)
    action = next(filter(None, (_rule_action(job, candidate) for candidate in failed)), None)
    if action == "FailJob":
        return 1, reason, "FailurePolicy"
    if action is not None:
        return int(action == "Count"), reason, ""
    if pod.exit_code in FAIL_JOB:
        return 1, reason, FAIL_JOB[pod.exit_code]
    return int(not _is_infrastructure(pods, size)), reason, ""


def _rule_action(job: RolloutJob, pod: Pod) -> str | None:
    """The action of the user's first matching rule; None without a match."""
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
    """Whether the pods were evicted or deleted, or never ran. A gang that lost a rank in this way is included."""
    if len(pods) < size or any(pod.leaving or DISRUPTED in pod.conditions for pod in pods):
        return True
    failed = [pod for pod in pods if pod.phase is PodPhase.FAILED]
    return all(pod.exit_code is None and not (pod.setup_failed or pod.refused) for pod in failed)


def _end_reason(pod: Pod) -> str:
    cause = pod.problem or (f"exit code {pod.exit_code}" if pod.exit_code is not None else "its node ended it")
    return f"{cause}: {pod.message.strip()}"[:LONGEST_MESSAGE] if pod.message.strip() else cause[:LONGEST_MESSAGE]


def _budget(job: RolloutJob, component: str) -> int:
    policy = job.spec.failure_policy
    return policy.driver_restarts if component == DRIVER else policy.worker_restarts


def _believes(observation: Observation, memory: Memory, node: str) -> bool:
    """Whether a report of a sick node is accepted: the node is known, or the window has fewer than MOST_SICK_NODES."""
    since = observation.now - SICK_WINDOW_SECONDS
    recent = [sick.node for sick in memory.sick_nodes if sick.until is None and sick.at > since]
    return node in recent or len(recent) < MOST_SICK_NODES


def _update_sick_nodes(observation: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """Remembers nodes with a GPU that a worker reported as sick, by heartbeat or termination message; and, for
    REFUSAL_SECONDS, nodes that refused a pod."""
    nodes = {sick.node: sick for sick in memory.sick_nodes if sick.until is None or sick.until > observation.now}
    events: list[Announce] = []
    for pod in observation.pods:
        if pod.refused and not pod.leaving and pod.node and pod.node not in nodes:
            until = observation.now + REFUSAL_SECONDS
            why = _end_reason(pod)
            nodes[pod.node] = SickNode(pod.node, pod.component, why, observation.now, until)
            message = f"node {pod.node} refused {pod.name}: {why}; it is avoided for {REFUSAL_SECONDS:.0f} s"
            events.append(Announce(True, "PodRefused", message[:LONGEST_MESSAGE], node=pod.node))
    for pod in observation.pods:
        fault = _gpu_fault(observation, pod)
        # The leader of a gang reports for all ranks; a message about another rank begins with that rank's node.
        gang = (other for other in observation.pods if other.index == pod.index)
        node = next((other.node for other in gang if fault.startswith(f"{other.node} ")), pod.node)
        known = nodes.get(node)
        if not fault or not node or (known is not None and known.until is None):
            continue
        if not _believes(observation, replace(memory, sick_nodes=tuple(nodes.values())), node):
            continue
        nodes[node] = SickNode(node, pod.component, fault[:LONGEST_MESSAGE], observation.now)
        message = f"{pod.component} on node {node} reports {fault}; it is replaced on another node"
        events.append(Announce(True, GPU_SICK, message, node=node))
    by_age = sorted(nodes.values(), key=lambda sick: sick.at)
    refusing = [sick for sick in by_age if sick.until is not None][-MOST_SICK_NODES:]
    lasting = [sick for sick in by_age if sick.until is None][-MOST_SICK_NODES:]
    return replace(memory, sick_nodes=(*refusing, *lasting)), events


def _gpu_fault(observation: Observation, pod: Pod) -> str:
    """The fault of a GPU that the worker in this pod has reported, "" for none."""
    if pod.exit_code == GpuSickError.exit_code:
        return pod.message.removeprefix("error: ").strip() or "a sick GPU"
    report = observation.report_of(pod)
    return report.sick if report is not None else ""
