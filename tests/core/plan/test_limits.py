"""The operator's concurrent work for one job has a limit, for any size of the job and any failure in it."""

import pytest

from openseer_core.plan.actions import Announce, CreatePod
from openseer_core.plan.failures import MOST_FAILED_MEMBERS, MOST_SICK_NODES
from openseer_core.plan.observation import Memory, Pod, SickNode
from openseer_core.plan.plan import MOST_EVENTS, Plan, plan
from openseer_core.plan.workers import MOST_CREATIONS
from tests.core.plan.cluster_model import Cluster, make_job

EXTERNAL = {"url": "redis://r:6379/0"}
IGNORE = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}]}


def workers_made(decided: Plan) -> list[CreatePod]:
    return [action for action in decided.actions if isinstance(action, CreatePod) and action.index is not None]


def test_a_large_fleet_is_made_in_batches_without_a_wait() -> None:
    cluster = Cluster(make_job(workers={"replicas": 4096}, store=EXTERNAL))
    first = cluster.step()
    assert len(workers_made(first)) == MOST_CREATIONS
    assert first.wake_at == cluster.now
    rest = [len(workers_made(cluster.step())) for _ in range(16)]
    assert rest == [MOST_CREATIONS] * 15 + [0]


def test_no_gang_is_cut_by_the_limit_of_a_batch() -> None:
    cluster = Cluster(make_job(workers={"replicas": 9, "parallelism": {"tensor": 100, "nodes": 100}}, store=EXTERNAL))
    made = [len(workers_made(cluster.step())) for _ in range(4)]
    assert made == [300, 300, 300, 0]


def test_after_refused_pods_the_next_batch_is_not_due_at_once() -> None:
    cluster = Cluster(make_job(workers={"replicas": 1000}, store=EXTERNAL), room=40)
    cluster.step()
    assert cluster.refusals
    assert cluster.step().wake_at is None


def ready_workers(cluster: Cluster, replicas: int) -> list[Pod]:
    """The pods of all workers once they are ready, within 60 steps."""
    for _ in range(60):
        found = [pod for pod in cluster.live_workers() if pod.ready]
        if len(found) == replicas:
            return found
        cluster.step()
        cluster.tick()
    raise AssertionError(f"{len(cluster.live_workers())} of {replicas} workers exist")


@pytest.mark.parametrize("failing", [MOST_FAILED_MEMBERS + 44, MOST_FAILED_MEMBERS])
def test_members_whose_failures_are_forgotten_wait_like_the_others(failing: int) -> None:
    cluster = Cluster(make_job(workers={"replicas": failing}, failurePolicy=IGNORE, store=EXTERNAL))
    for _ in range(6):
        for pod in ready_workers(cluster, failing):
            cluster.end(pod.name, 1)
        cluster.step()
    assert workers_made(cluster.step()) == []


def test_each_end_is_reported_once_though_other_failures_are_dropped() -> None:
    size = MOST_FAILED_MEMBERS + 1
    cluster = Cluster(make_job(workers={"replicas": size}, failurePolicy=IGNORE, store=EXTERNAL))
    for pod in ready_workers(cluster, size)[:-1]:
        cluster.end(pod.name, 1)
    assert len(cluster.step().ended) == MOST_FAILED_MEMBERS
    cluster.end(f"j-worker-{size - 1}", 1)
    cluster.now += 1
    decided = cluster.step()
    assert decided.ended == (f"worker-{size - 1}",)
    assert len(decided.memory.failures) == MOST_FAILED_MEMBERS
    assert plan(cluster.observe()).ended == ()


def test_one_failed_member_does_not_delay_the_others() -> None:
    cluster = Cluster(make_job(workers={"replicas": 3}, failurePolicy=IGNORE, store=EXTERNAL))
    ready_workers(cluster, 3)
    cluster.end("j-worker-1", 1)
    cluster.change(workers={"replicas": 5})
    assert [made.index for made in workers_made(cluster.step())] == [3, 4]


def test_many_events_of_one_reason_are_summarized() -> None:
    cluster = Cluster(make_job(workers={"replicas": 200}, failurePolicy=IGNORE, store=EXTERNAL))
    for pod in ready_workers(cluster, 200):
        cluster.end(pod.name, 1)
    told = [event for event in cluster.step().actions if isinstance(event, Announce) and event.reason == "MemberEnded"]
    assert len(told) == MOST_EVENTS + 1
    assert told[-1].message.startswith(f"and {200 - MOST_EVENTS} more; the last: worker-")


def full(room: int) -> Cluster:
    """A job of three workers in a namespace with room for `room` pods."""
    cluster = Cluster(make_job(workers={"replicas": 3}, store=EXTERNAL), room=room)
    for _ in range(6):
        cluster.step()
        cluster.tick()
    assert cluster.refusals
    return cluster


def test_a_refusal_is_kept_while_its_pod_is_not_tried() -> None:
    cluster = full(room=3)
    cluster.end("j-driver", 1)
    seen: list[bool] = []
    for _ in range(8):
        cluster.step()
        seen.append(bool(cluster.refusals))
        cluster.now += 0.1
    assert all(seen)
    assert "j-driver" in cluster.pods, "no worker has taken the driver's place"


def test_a_refusal_is_dropped_once_its_pod_is_not_wanted() -> None:
    cluster = full(room=3)
    cluster.change(workers={"replicas": 2})
    cluster.step()
    assert not cluster.refusals


def test_nodes_that_refuse_pods_are_avoided_beside_all_sick_ones() -> None:
    cluster = Cluster(make_job(workers={"replicas": MOST_SICK_NODES}, store=EXTERNAL))
    sick = [f"g{index}" for index in range(MOST_SICK_NODES)]
    known = tuple(SickNode(node, "worker-0", "Xid 79", at) for at, node in enumerate(sick))
    cluster.memory = Memory(sick_nodes=known)
    ready_workers(cluster, MOST_SICK_NODES)
    refusing = [f"r{index}" for index in range(MOST_SICK_NODES)]
    for index, node in enumerate(refusing):
        cluster.refuse(f"j-worker-{index}", node, "UnexpectedAdmissionError")
    cluster.step()
    assert set(cluster.memory.avoid) == {*sick, *refusing}
    assert set(cluster.memory.refusing) == {*refusing}
