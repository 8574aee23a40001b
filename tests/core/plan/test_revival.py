"""A limit that ended a job keeps it ended until the limit is raised."""

from dataclasses import replace

import pytest

from openseer_core.plan.failures import MOST_FAILED_MEMBERS
from openseer_core.plan.observation import Failure
from tests.core.plan.cluster_model import Cluster, make_job


@pytest.mark.parametrize("back", [0.0, 2.0, 3600.0])
def test_a_passed_deadline_stays_passed_when_the_clock_steps_back(back: float) -> None:
    cluster = Cluster(make_job(activeDeadlineSeconds=100))
    cluster.step()
    cluster.now += 100.5
    cluster.step()
    ended = cluster.memory.ending
    assert ended is not None
    cluster.now -= back
    assert not [action for action in cluster.step().actions if getattr(action, "reason", "") == "Revived"]
    assert cluster.memory.ending == ended
    # A changed deadline is compared with the present time.
    cluster.change(activeDeadlineSeconds=200)
    cluster.step()
    assert cluster.memory.ending is None


def test_the_failure_that_ended_the_job_is_kept_among_many_others() -> None:
    cluster = Cluster(make_job(workers={"replicas": 1}, failurePolicy={"driverRestarts": 0, "workerRestarts": 9}))
    for _ in range(2):
        cluster.step()
        cluster.tick()
    others = {f"worker-{index}": Failure(5, 5, 1, "", cluster.now, cluster.now) for index in range(MOST_FAILED_MEMBERS)}
    cluster.memory = replace(cluster.memory, failures=others)
    cluster.end("j-driver", 7)
    cluster.step()
    ended = cluster.memory.ending
    assert ended is not None
    assert ended.reason == "RestartsExhausted"
    assert len(cluster.memory.failures) == MOST_FAILED_MEMBERS
    cluster.tick()
    cluster.step()
    assert cluster.memory.ending == ended
