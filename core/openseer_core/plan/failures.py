"""What a job learns from how its pods ended: restarts counted, nodes avoided, the job's own end.

The failure policy follows that of batch/v1 Jobs: the first matching rule of the user decides; then what is known of
infrastructure; the rest counts against the member's restart budget.
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
"""A member that held out so long starts its back-off anew."""
MOST_SICK_NODES = 16
"""Nodes remembered as sick; the oldest are forgotten."""
LONGEST_MESSAGE = 1024
"""Characters of a pod's last words that go into a status."""
DISRUPTED = ("DisruptionTarget", "True")
_FAIL_JOB = {2: "InvalidInput", 5: "StoreLost", 6: "AuditFailed"}
"""Exit codes (openseer_core.errors) that no repeat can mend."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one look taught: the new memory, and what a person is told of it."""

    memory: Memory
    events: tuple[Announce, ...] = ()


def learn(o: Observation) -> Lesson:
    """The memory after this observation. A job that has ended learns nothing more."""
    memory = replace(o.memory, progress=_final(o) or o.progress)
    if memory.ending is not None:
        return Lesson(memory)
    memory, events = _clock(o, memory)
    ending = _completed(o, memory) or _overdue(o, memory)
    if ending is None and not o.job.spec.suspend:
        memory, ending, more = _ended_members(o, memory)
        memory, sick = _sick(o, memory)
        events += more + sick
    if ending is not None:
        memory = replace(memory, ending=ending)
        events.append(Announce(ending.outcome is JobOutcome.FAILED, ending.reason, ending.message))
    return Lesson(memory, tuple(events))


def backoff_until(failure: Failure | None) -> float:
    """When the next incarnation of a member may start (seconds since the epoch)."""
    if failure is None or not failure.streak:
        return 0.0
    return failure.at + min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failure.streak - 1, 30), MOST_BACKOFF_SECONDS)


def _clock(o: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """The deadline counts while the job is not suspended, as that of a batch/v1 Job does."""
    if o.job.spec.suspend:
        if memory.suspended:
            return memory, []
        return replace(memory, suspended=True, started_at=None), [
            Announce(False, "Suspended", "workers hand back what they run; then no pod is left")
        ]
    if memory.started_at is not None:
        return memory, []
    word = "Resumed" if memory.suspended else "Started"
    return replace(memory, suspended=False, started_at=o.now), [
        Announce(False, word, f"{o.job.spec.workers.replicas} workers wanted")
    ]


def _final(o: Observation) -> BatchProgress | None:
    """The counts in the last words of a driver that is done: its store may be gone by now."""
    done = (pod for pod in o.pods if pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED)
    return next(filter(None, (BatchProgress.from_json(pod.message) for pod in done)), None)


def _completed(o: Observation, memory: Memory) -> Ending | None:
    if any(pod.component == DRIVER and pod.phase is PodPhase.SUCCEEDED for pod in o.pods):
        counts = memory.progress
        return Ending(
            JobOutcome.COMPLETE, "AllReported", f"{counts.closed} of {counts.requests} responses written", o.now
        )
    return None


def _overdue(o: Observation, memory: Memory) -> Ending | None:
    limit = o.job.spec.active_deadline_seconds
    if limit is None or memory.started_at is None or o.now < memory.started_at + limit:
        return None
    return Ending(
        JobOutcome.FAILED,
        "DeadlineExceeded",
        f"spec.activeDeadlineSeconds: {limit} s have passed; see the results",
        o.now,
    )


def _ended_members(o: Observation, memory: Memory) -> tuple[Memory, Ending | None, list[Announce]]:
    """Counts every incarnation that ended unasked once."""
    failures = dict(memory.failures)
    events: list[Announce] = []
    for member, pods in _incarnations(o, memory):
        known = failures.get(member, Failure())
        size = 1 if member == DRIVER else o.job.spec.workers.parallelism.nodes
        counted, words, fatal = _judge(o.job, pods, size)
        quiet = o.now - known.at > QUIET_SECONDS
        failures[member] = now_known = Failure(
            known.count + counted, known.attempts + 1, 1 if quiet else known.streak + 1, words, o.now
        )
        budget = _budget(o.job, member)
        if not fatal and now_known.count > budget:
            fatal, words = "RestartsExhausted", f"failed {now_known.count} times, {budget} are allowed; last: {words}"
        if fatal:
            ending = Ending(JobOutcome.FAILED, fatal, f"{member}: {words}", o.now)
            return replace(memory, failures=failures), ending, events
        what = f"failure {now_known.count} of {budget} allowed" if counted else "not counted as a failure"
        events.append(Announce(bool(counted), "MemberEnded", f"{member}: {words} ({what})"))
    return replace(memory, failures=failures), None, events


def _incarnations(o: Observation, memory: Memory) -> Iterator[tuple[str, list[Pod]]]:
    """Members whose present incarnation ended although nobody asked it to."""
    present: dict[str, list[Pod]] = {}
    for pod in o.pods:
        attempts = memory.failures.get(pod.component, Failure()).attempts
        if pod.attempt >= attempts:
            present.setdefault(pod.component, []).append(pod)
    for member, pods in present.items():
        if any(pod.ended and not pod.leaving for pod in pods):
            yield member, pods


def _judge(job: RolloutJob, pods: Sequence[Pod], size: int) -> tuple[int, str, str]:
    """Whether it counts (0 or 1), in words why it ended, and the reason when the whole job has to fail for it."""
    failed = [pod for pod in pods if pod.phase is PodPhase.FAILED and not pod.leaving]
    if not failed:
        return 0, "left by itself", ""
    sick = next((pod for pod in failed if pod.exit_code == GpuSickError.exit_code), None)
    if sick is not None:
        return 0, _words(sick), ""
    # Of a gang, most ranks end because another did: the one that says most is the one without the usual code.
    pod = max(failed, key=lambda one: (bool(one.message), one.exit_code not in (None, 7), -one.rank))
    words = _words(pod)
    action = next(filter(None, (_by_rule(job, one) for one in failed)), None)
    if action == "FailJob":
        return 1, words, "FailurePolicy"
    if action is not None:
        return int(action == "Count"), words, ""
    if pod.exit_code in _FAIL_JOB:
        return 1, words, _FAIL_JOB[pod.exit_code]
    return int(not _is_infrastructure(pods, size)), words, ""


def _by_rule(job: RolloutJob, pod: Pod) -> str | None:
    """The action of the first rule of the user that matches."""
    for rule in job.spec.failure_policy.rules:
        codes = rule.on_exit_codes
        if codes is not None:
            listed = pod.exit_code in codes.values
            if pod.exit_code and listed == (codes.operator == "In"):
                return rule.action
        elif any((one.type, one.status) in pod.conditions for one in rule.on_pod_conditions or ()):
            return rule.action
    return None


def _is_infrastructure(pods: Sequence[Pod], size: int) -> bool:
    """Evicted, taken away, or never run: no process of ours is to blame. A gang that lost a rank so is not, either."""
    if len(pods) < size or any(pod.leaving or DISRUPTED in pod.conditions for pod in pods):
        return True
    return all(pod.exit_code is None for pod in pods if pod.phase is PodPhase.FAILED)


def _words(pod: Pod) -> str:
    cause = pod.problem or (f"exit code {pod.exit_code}" if pod.exit_code is not None else "its node ended it")
    return f"{cause}: {pod.message.strip()}"[:LONGEST_MESSAGE] if pod.message.strip() else cause[:LONGEST_MESSAGE]


def _budget(job: RolloutJob, member: str) -> int:
    policy = job.spec.failure_policy
    return policy.driver_restarts if member == DRIVER else policy.worker_restarts


def _sick(o: Observation, memory: Memory) -> tuple[Memory, list[Announce]]:
    """Remembers nodes whose GPUs a worker reported sick, in a heartbeat or in its last words."""
    nodes = {one.node: one for one in memory.sick_nodes}
    events: list[Announce] = []
    for pod in o.pods:
        illness = _illness(o, pod)
        # The leader of a gang speaks for all its ranks: it names the node of another one first.
        gang = (one for one in o.pods if one.index == pod.index)
        node = next((one.node for one in gang if illness.startswith(f"{one.node} ")), pod.node)
        if not illness or not node or node in nodes:
            continue
        nodes[node] = SickNode(node, pod.component, illness[:LONGEST_MESSAGE], o.now)
        words = f"{pod.component} on node {node} reports {illness}; it is replaced on another node"
        events.append(Announce(True, "GpuSick", words, node=node))
    newest = sorted(nodes.values(), key=lambda one: one.at)[-MOST_SICK_NODES:]
    return replace(memory, sick_nodes=tuple(newest)), events


def _illness(o: Observation, pod: Pod) -> str:
    """Why the GPU under a worker's pod should not be used, "" when nothing is said against it."""
    if pod.exit_code == GpuSickError.exit_code:
        return pod.message.removeprefix("error: ").strip() or "a sick GPU"
    report = o.report_of(pod)
    return report.sick if report is not None else ""
