"""A template that Kubernetes has not accepted withholds new pods and nothing else."""

from dataclasses import replace

import pytest

from openseer_core.plan.observation import JobOutcome, SickNode, TemplateAnswer, TemplateVerdict
from tests.core.plan.cluster_model import Cluster, make_job

INVALID = TemplateVerdict(TemplateAnswer.INVALID, "unknown field")
WRONG = {"metadata": {"labels": {"word": "wrong"}}}


def test_an_invalid_template_makes_no_objects_and_starts_no_deadline() -> None:
    cluster = Cluster(make_job(activeDeadlineSeconds=60), templates=INVALID)
    for _ in range(4):
        assert not cluster.step().actions
        cluster.now += 3600.0
    cluster.templates = TemplateVerdict()
    cluster.step()
    assert cluster.memory.started_at == cluster.now
    assert cluster.store_replicas == 1


def test_an_unanswered_changed_template_replaces_no_worker() -> None:
    cluster = Cluster(make_job(workers={"replicas": 12}))
    for _ in range(6):
        cluster.step()
        cluster.tick()
    cluster.change(workers={"template": WRONG})
    cluster.templates = TemplateVerdict(TemplateAnswer.UNANSWERED, "too many requests")
    assert not cluster.step().actions


def test_an_invalid_changed_template_delays_no_drain_and_no_end() -> None:
    cluster = Cluster(make_job(workers={"replicas": 3}))
    for _ in range(4):
        cluster.step()
        cluster.tick()
    cluster.change(workers={"template": WRONG})
    cluster.templates = INVALID
    for _ in range(4):
        cluster.step()
        cluster.tick()
    assert len(cluster.live_workers()) == 3
    cluster.sick = {"worker-1": "a GPU is sick"}
    cluster.change(workers={"replicas": 2, "template": WRONG})
    for _ in range(4):
        cluster.step()
        cluster.tick()
    assert sorted(pod for pod in cluster.pods if "worker" in pod) == ["j-worker-0", "j-worker-2"]
    cluster.end("j-driver", 0)
    for _ in range(8):
        cluster.step()
        cluster.tick()
    assert cluster.memory.ending is not None
    assert cluster.memory.ending.outcome is JobOutcome.COMPLETE
    assert not cluster.live_workers()


@pytest.mark.parametrize("answer", [answer for answer in TemplateAnswer if answer is not TemplateAnswer.TAKEN])
def test_a_pending_pod_stays_while_no_successor_can_be_made(answer: TemplateAnswer) -> None:
    cluster = Cluster(make_job(workers={"replicas": 1}))
    cluster.memory = replace(
        cluster.memory, sick_nodes=(SickNode("n9", "worker-0", "refused", cluster.now, until=cluster.now + 600.0),)
    )
    cluster.step()
    cluster.step()
    waiting = {"j-driver", "j-worker-0"}
    cluster.now += 900.0
    cluster.templates = TemplateVerdict(answer, "unknown field")
    cluster.step()
    assert set(cluster.pods) == waiting
    cluster.templates = TemplateVerdict()
    cluster.step()
    assert not set(cluster.pods) & waiting
