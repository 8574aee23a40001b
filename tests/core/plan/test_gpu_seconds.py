"""GPU time of a job: the sum over all GPUs of its workers, kept when the store does not answer."""

from openseer_core.plan.observation import GpuSeconds, StoreView
from openseer_core.plan.plan import plan
from openseer_core.queue.batch import QueueLoad
from openseer_core.queue.messages import BatchProgress
from tests.core.plan.cluster_model import Cluster, make_job


def test_gpu_time_counts_every_gpu_of_a_worker() -> None:
    job = make_job(workers={"parallelism": {"tensor": 4, "pipeline": 2}})
    load = QueueLoad(idle_seconds=10.5, busy_seconds=100.25)
    assert GpuSeconds.of(job, load) == GpuSeconds(idle=84, busy=802)


def test_gpu_time_is_remembered_and_never_falls() -> None:
    cluster = Cluster(make_job())
    known = GpuSeconds(idle=30, busy=500)

    def remembered(store: StoreView | None) -> GpuSeconds:
        cluster.gpu_seconds = store.gpu_seconds if store is not None else GpuSeconds()
        cluster.store_answers = store is not None
        cluster.step()
        return cluster.memory.gpu_seconds

    cluster.store_replicas = 1
    cluster.place_store()
    assert remembered(StoreView(BatchProgress(), gpu_seconds=known)) == known
    assert remembered(None) == known
    assert remembered(StoreView(BatchProgress(), gpu_seconds=GpuSeconds(idle=31, busy=499))) == GpuSeconds(31, 500)


def test_a_change_of_gpu_time_alone_causes_no_action() -> None:
    cluster = Cluster(make_job())
    for _ in range(6):
        cluster.step()
        cluster.tick()
    cluster.gpu_seconds = GpuSeconds(idle=1000, busy=1)
    assert plan(cluster.observe()).actions == ()
