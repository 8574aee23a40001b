"""Invariants of `plan` under any events: it converges to the spec, and causes no unnecessary work."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openseer_core.errors import GpuSickError
from openseer_core.manifest.failures import FailurePolicy
from openseer_core.plan.actions import KV_POOL_OBJECT, ROWS_OBJECT, ApplyShared, DeletePod, Stamp
from openseer_core.plan.failures import FAIL_JOB, LONGEST_REASON, MOST_FAILED_MEMBERS, MOST_SICK_NODES
from openseer_core.plan.observation import RELEASED, Failure, JobOutcome, Memory, Observation, Pod, PodPhase
from openseer_core.plan.plan import Plan, plan
from openseer_core.plan.scaling import desired_workers, template_hash
from openseer_core.plan.workers import PROTECTED_SECONDS, standing_workers, workers_of
from openseer_core.queue.messages import BatchProgress
from tests.core.plan.cluster_model import TICK, Cluster, make_job, serving
from tests.repository import ROOT, SOAK

MOST_STEPS = 80
"""Most steps until rest, including the back-off of the last failures and a rolling replacement of six workers."""

Happening = Callable[[Cluster], None]


def scale(replicas: int) -> Happening:
    return lambda cluster: cluster.change(workers={"replicas": replicas})


def suspend(value: bool) -> Happening:
    return lambda cluster: cluster.change(suspend=value)


def drift(word: str) -> Happening:
    return lambda cluster: cluster.change(workers={"template": {"metadata": {"labels": {"word": word}}}})


def end(position: int, code: int, disrupted: bool) -> Happening:
    def happen(cluster: Cluster) -> None:
        running = [name for name, pod in cluster.pods.items() if pod.phase is PodPhase.RUNNING and not pod.leaving]
        if running and (running[position % len(running)] != "j-driver" or code):
            cluster.end(running[position % len(running)], code, disrupted=disrupted)

    return happen


def vanish(position: int) -> Happening:
    def happen(cluster: Cluster) -> None:
        if cluster.pods:
            del cluster.pods[list(cluster.pods)[position % len(cluster.pods)]]

    return happen


def load(tokens: tuple[int, ...]) -> Happening:
    def happen(cluster: Cluster) -> None:
        cluster.busy = {f"worker-{index}": count for index, count in enumerate(tokens) if count}

    return happen


def progress(done: int) -> Happening:
    def happen(cluster: Cluster) -> None:
        closed = max(done, cluster.progress.closed)
        cluster.progress = BatchProgress(groups=1, requests=20, ok=min(closed, 19), sealed=True)

    return happen


def answers(value: bool) -> Happening:
    def happen(cluster: Cluster) -> None:
        cluster.store_answers = value

    return happen


def sicken(position: int) -> Happening:
    def happen(cluster: Cluster) -> None:
        live = cluster.live_workers()
        if live:
            cluster.sick[live[position % len(live)].component] = "gpu0: Xid 79"

    return happen


SMALL = st.integers(0, 6)
HAPPENINGS = st.one_of(
    st.builds(scale, SMALL),
    st.builds(suspend, st.booleans()),
    st.builds(drift, st.sampled_from("abc")),
    st.builds(end, SMALL, st.sampled_from([0, 1, 7, 137]), st.booleans()),
    st.builds(vanish, SMALL),
    st.builds(load, st.tuples(*[st.integers(0, 999)] * 6)),
    st.builds(progress, st.integers(0, 19)),
    st.builds(answers, st.booleans()),
    st.builds(sicken, SMALL),
)


def is_needed(observation: Observation, decided: Plan) -> bool:
    """Whether each busy worker that is deleted has its own reason, or the lowest removal cost of all candidates."""
    wanted = template_hash(observation.job)
    asked = {action.uid for action in decided.actions if isinstance(action, DeletePod)}
    workers = [worker for worker in workers_of(observation) if not worker.ended and not worker.leaving]
    kept = [worker for worker in workers if not any(pod.uid in asked for pod in worker.pods)]
    over = decided.memory.ending is not None or observation.job.spec.suspend
    for worker in workers:
        if not worker.busy or worker in kept:
            continue
        own_reason = over or worker.sick or len(worker.pods) < worker.size or worker.pods[0].template != wanted
        if not own_reason and any(other.removal_cost < worker.removal_cost for other in kept):
            return False
    return True


@settings(max_examples=3000 if SOAK else 150)
@given(nodes=st.sampled_from([1, 1, 2]), happenings=st.lists(st.tuples(HAPPENINGS, st.integers(0, 3)), max_size=12))
def test_any_state_converges_without_unneeded_removal_of_busy_workers(
    nodes: int, happenings: list[tuple[Happening, int]]
) -> None:
    workers = {"replicas": 3, "parallelism": {"nodes": nodes, "tensor": nodes}}
    cluster = Cluster(make_job(workers=workers, failurePolicy={"workerRestarts": 5}))
    for happen, steps in happenings:
        happen(cluster)
        for _ in range(steps):
            reconcile(cluster)
            cluster.tick()
    assert rests(cluster)
    assert_as_wanted(cluster)


def reconcile(cluster: Cluster) -> Plan:
    seen = cluster.observe()
    decided = cluster.step()
    assert is_needed(seen, decided)
    return decided


def rests(cluster: Cluster) -> bool:
    for _ in range(MOST_STEPS):
        decided = reconcile(cluster)
        if not decided.actions and not cluster.moves:
            if decided.wake_at is None:
                return True
            cluster.now = max(cluster.now, decided.wake_at - TICK)
        cluster.tick()
    return False


def assert_as_wanted(cluster: Cluster) -> None:
    """Asserts that the pods are those of spec and memory; a finished or suspended job has none."""
    runs = cluster.memory.ending is None and not cluster.job.spec.suspend
    seen = cluster.observe()
    desired = desired_workers(cluster.job, seen.progress)[0] if runs else 0
    size = cluster.job.spec.workers.parallelism.nodes
    assert len({pod.index for pod in cluster.live_workers()}) == desired
    assert len(cluster.live_workers()) == desired * size
    assert {pod.template for pod in cluster.live_workers()} <= {template_hash(cluster.job)}
    assert sum(pod.index is None and not pod.ended for pod in cluster.pods.values()) == int(runs)
    assert bool(cluster.store_replicas) == runs


def test_a_plan_at_rest_has_no_actions() -> None:
    cluster = Cluster(make_job())
    assert rests(cluster)
    assert plan(cluster.observe()).actions == ()


def test_the_first_matching_rule_of_the_failure_policy_decides() -> None:
    rules = [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [7]}},
    ]
    for code, count, ended in ((42, 0, False), (7, 1, False), (43, 1, True)):
        cluster = Cluster(make_job(failurePolicy={"rules": rules}))
        assert rests(cluster)
        cluster.end("j-worker-1", code)
        cluster.step()
        assert cluster.memory.failures["worker-1"].count == count
        assert (cluster.memory.ending is not None) == ended


def test_a_rule_on_a_pod_condition_precedes_the_excuse_for_disruptions() -> None:
    rules = [{"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
    cluster = Cluster(make_job(failurePolicy={"rules": rules}))
    assert rests(cluster)
    cluster.end("j-worker-0", 137, disrupted=True)
    cluster.step()
    assert cluster.memory.failures["worker-0"].count == 1


@pytest.mark.parametrize("code", [2, 5, 6])
def test_a_users_rule_precedes_the_meaning_of_exit_codes(code: int) -> None:
    rules = [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [code]}}]
    cluster = Cluster(make_job(failurePolicy={"rules": rules}))
    assert rests(cluster)
    cluster.end("j-worker-0", code, "of the user's own image")
    cluster.step()
    assert (cluster.memory.ending, cluster.memory.failures["worker-0"].count) == (None, 0)


def test_no_rule_counts_a_sick_gpu() -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [8]}}]
    cluster = Cluster(make_job(failurePolicy={"rules": rules}))
    assert rests(cluster)
    cluster.end("j-worker-0", 8, "gpu0: Xid 79")
    cluster.step()
    assert (cluster.memory.ending, cluster.memory.failures["worker-0"].count) == (None, 0)


def test_manifest_and_docs_name_the_codes_that_fail_a_job() -> None:
    definition = (ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8")
    known = FailurePolicy.model_fields["rules"].description or ""
    assert known in " ".join(definition.split()), "the CRD has the description of the manifest's model"
    before, after = known.split("After them:")
    fatal = after.split("fail the job")[0]
    assert {int(code) for code in re.findall(r"\d+", fatal)} == set(FAIL_JOB)
    assert re.findall(r"\d+", before) == [str(GpuSickError.exit_code)]
    rows = re.findall(r"^\| (\d+) \|.* fails at once, `(\w+)` \|$", read_docs("kubernetes.md"), re.MULTILINE)
    assert {int(code): reason for code, reason in rows} == FAIL_JOB


def read_docs(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_a_job_that_reports_every_node_sick_fails_at_the_limit() -> None:
    cluster = Cluster(make_job(workers={"replicas": 1}), nodes=tuple(f"n{index}" for index in range(40)))
    for _ in range(40):
        assert rests(cluster)
        if cluster.memory.ending is None:
            cluster.end("j-worker-0", 8, "error: gpu0: Xid 79")
    assert len(cluster.memory.sick_nodes) == MOST_SICK_NODES
    assert cluster.memory.failures["worker-0"].attempts < 24
    assert cluster.memory.ending is not None
    assert "RestartsExhausted" in cluster.memory.ending.reason


def test_beyond_the_limit_of_sick_nodes_a_worker_stays() -> None:
    cluster = Cluster(make_job(workers={"replicas": 1}), nodes=tuple(f"n{index}" for index in range(40)))
    for _ in range(MOST_SICK_NODES + 2):
        assert rests(cluster)
        cluster.sick["worker-0"] = "gpu0: Xid 79"
        reconcile(cluster)
    assert len(cluster.memory.sick_nodes) == MOST_SICK_NODES
    assert not cluster.pods["j-worker-0"].leaving


def test_a_redis_without_a_volume_keeps_its_protection_from_eviction() -> None:
    for medium, moves in (("volume", True), ("ephemeral", False)):
        cluster = Cluster(make_job(store={"persistence": {"medium": medium, "size": "1Gi"}}))
        assert rests(cluster)
        started = cluster.now
        cluster.redis = Pod("j-redis-0", "r", None, phase=PodPhase.RUNNING, ready=True, stamp=True, started_at=started)
        cluster.now += PROTECTED_SECONDS
        assert (Stamp("j-redis-0", "r", busy=False) in plan(cluster.observe()).actions) is moves


@pytest.mark.parametrize(("code", "reason"), FAIL_JOB.items())
def test_an_error_that_a_repeat_cannot_mend_fails_the_job_at_once(code: int, reason: str) -> None:
    cluster = Cluster(make_job())
    assert rests(cluster)
    cluster.end("j-driver", code, "why")
    cluster.step()
    assert cluster.memory.ending is not None
    assert (cluster.memory.ending.outcome, cluster.memory.ending.reason) == (JobOutcome.FAILED, reason)


def test_failures_of_a_whole_fleet_are_remembered_up_to_a_limit() -> None:
    size = MOST_FAILED_MEMBERS + 40
    cluster = Cluster(make_job(workers={"replicas": size}, failurePolicy={"workerRestarts": 9}))
    for _ in range(4):
        cluster.step()
        cluster.tick()
    for index in range(size):
        cluster.end(f"j-worker-{index}", 7, "x" * 5000)
    cluster.step()
    failures = cluster.memory.failures
    assert len(failures) == MOST_FAILED_MEMBERS
    assert {len(failure.reason) for failure in failures.values()} == {LONGEST_REASON}
    forgotten = {f"worker-{index}" for index in range(size)} - failures.keys()
    for _ in range(3):
        cluster.tick()
        cluster.step()
    assert len(cluster.live_workers()) == size
    # Members with higher counts are kept. A forgotten member is counted once, though its pod is a later incarnation.
    again = next(iter(failures))
    pod = f"j-{next(iter(forgotten))}"
    cluster.pods[pod] = replace(cluster.pods[pod], attempt=4)
    cluster.end(f"j-{again}", 7)
    cluster.end(pod, 7)
    cluster.now += 1
    decided = plan(cluster.observe())
    assert decided.memory.failures[again].count == 2
    seen = replace(cluster.observe(), memory=decided.memory)
    assert plan(seen).memory.failures == decided.memory.failures


def test_failures_of_an_older_status_are_cut_to_the_limit() -> None:
    many = {f"worker-{index}": Failure(1, 1, 1, "why", 1.0, 1.0) for index in range(2000)}
    cluster = Cluster(make_job(), memory=Memory(started_at=1000.0, failures=many))
    assert len(plan(cluster.observe()).memory.failures) == MOST_FAILED_MEMBERS


def test_a_failed_setup_before_openseers_process_counts() -> None:
    cluster = Cluster(make_job())
    assert rests(cluster)
    pod = cluster.pods["j-worker-0"]
    problem = "init container fetch: exit code 1: no such host"
    ended = replace(pod, phase=PodPhase.FAILED, ready=False, problem=problem, setup_failed=True)
    cluster.pods["j-worker-0"] = ended
    cluster.step()
    failure = cluster.memory.failures["worker-0"]
    assert (failure.count, failure.reason) == (1, problem)


def test_workers_that_cannot_start_are_not_protected() -> None:
    job = make_job(workers={"replicas": 8})
    cluster = Cluster(job)
    assert rests(cluster)
    assert standing_workers(cluster.pods.values(), 8) == 8
    cut = {"unschedulable": True}, {"gated": True}, {"problem": "ImagePullBackOff"}, {"unschedulable": True}
    for index, held in enumerate(cut):
        name = f"j-worker-{index}"
        cluster.pods[name] = replace(cluster.pods[name], phase=PodPhase.PENDING, ready=False, node="", **held)
    assert standing_workers(cluster.pods.values(), 8) == 4
    # An evicted worker still counts until its successor is known to be unschedulable.
    del cluster.pods["j-worker-7"]
    assert standing_workers(cluster.pods.values(), 8) == 4


def test_the_wait_before_a_restart_grows_with_each_failure() -> None:
    cluster = Cluster(make_job(failurePolicy={"workerRestarts": 9}))
    waits: list[float] = []
    for _ in range(6):
        assert rests(cluster)
        cluster.end("j-worker-0", 1)
        ended_at = cluster.now
        cluster.step()
        due = plan(cluster.observe()).wake_at
        waits.append((due or ended_at) - ended_at)
    assert waits == sorted(waits)
    assert waits[-1] >= 4 * waits[1] > 0


def test_the_tail_of_a_trainers_batch_releases_no_worker() -> None:
    tail = BatchProgress(groups=1, requests=8, ok=7, sealed=True)
    job = serving(make_job(workers={"replicas": 4}))
    assert desired_workers(job, tail) == (4, "spec.workers.replicas")
    assert desired_workers(job, tail, released=True) == (0, RELEASED)
    assert desired_workers(make_job(workers={"replicas": 4}), replace(tail, sealed=False), released=True)[0] == 4


def test_bound_policies_release_no_worker_in_the_tail() -> None:
    job = make_job(rollout={"policy": "round-robin"}, workers={"replicas": 4})
    tail = BatchProgress(groups=1, requests=8, ok=7, sealed=True)
    assert desired_workers(job, tail)[0] == 4
    assert desired_workers(make_job(workers={"replicas": 4}), tail)[0] == 1
    assert desired_workers(make_job(workers={"replicas": 4, "tailRelease": False}), tail)[0] == 4
    assert desired_workers(make_job(workers={"replicas": 4}), replace(tail, sealed=False))[0] == 4


def test_the_counts_of_a_complete_job_are_its_drivers_final_counts() -> None:
    cluster = Cluster(make_job())
    assert rests(cluster)
    cluster.store_answers = False
    counts = BatchProgress(groups=3, requests=12, ok=11, infra_failed=1, tokens=99, sealed=True)
    cluster.end("j-driver", 0, counts.to_json())
    assert rests(cluster)
    assert cluster.memory.progress == counts
    assert cluster.memory.ending is not None
    assert (
        cluster.memory.ending.message
        == "12 of 12 responses written, 1 of them failed: report.json contains the reasons"
    )


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("key", [KV_POOL_OBJECT, ROWS_OBJECT])
def test_pods_beside_a_suspended_job_are_still_updated(key: str, current: bool) -> None:
    cluster = Cluster(make_job(suspend=True))
    seen = replace(cluster.observe(), shared={"config": False, key: current})
    applied = [action for action in plan(seen).actions if isinstance(action, ApplyShared)]
    assert applied == ([] if current else [ApplyShared(key)])
