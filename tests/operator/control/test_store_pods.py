"""The pods that count as a job's Redis: those of its own StatefulSet, by owner and not by name."""

from typing import Any, cast

from openseer_core.plan.actions import DeletePod, Stamp
from openseer_core.plan.plan import plan
from openseer_operator.control.observe import Observer
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.objects.managed_redis import store_stateful_set
from openseer_operator.objects.names import REPLICAS_ANNOTATION
from openseer_operator.objects.reading import JobRecord, JsonObject
from openseer_operator.settings import OperatorSettings
from tests.operator.stores import ACCESS
from tests.operator.tenant import store_pod

KEY = ("lab", "job")
NOW = 1_790_000_000.0
SETTINGS = OperatorSettings("system", "worker:1", "operator:1", stores=ACCESS)


class Bench:
    """A job whose Redis has the StatefulSet `u-set`, and the operator's observer."""

    def __init__(self) -> None:
        nobody = cast("Api", None)
        self.cache = Cache()
        self.census = Census(nobody, self.cache, (), lambda key: None)
        poller = StorePoller(nobody, lambda key: None, access=ACCESS)
        self.observer = Observer(self.cache, self.census, poller, SETTINGS)
        spec = {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}}
        meta = {"name": KEY[1], "namespace": KEY[0], "uid": "u-job", "resourceVersion": "1"}
        self.cache.put_job({"metadata": meta, "spec": spec})
        self.set_found("u-set")

    @property
    def record(self) -> JobRecord:
        found = self.cache.job(KEY)
        assert found is not None
        return found

    def set_found(self, uid: str) -> None:
        self.census.put(self.stateful_set(uid), "StatefulSet")

    def stateful_set(self, uid: str) -> JsonObject:
        assert self.record.job is not None
        body: dict[str, Any] = store_stateful_set(self.record.job, "u-job", SETTINGS, 1, secret="s")
        body["metadata"] |= {"uid": uid}
        body["metadata"]["annotations"][REPLICAS_ANNOTATION] = "1"
        return body

    def see_pod(self, owner: str, *, uid: str = "u-pod", version: int = 5, **head: Any) -> None:
        """Adds a pod with name, labels and stamp of the job's Redis, hours old, of the StatefulSet `owner`."""
        pod = store_pod(self.stateful_set(owner))
        pod["metadata"] |= {"namespace": KEY[0], "uid": uid, "resourceVersion": str(version), **head}
        pod["spec"]["nodeName"] = "n1"
        pod["status"] = {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}
        assert self.cache.put_pod(pod) == KEY

    def touched(self) -> list[str]:
        """uids of pods that the next plan stamps or deletes."""
        actions = plan(self.observer.observe(self.record, NOW)).actions
        return [action.uid for action in actions if isinstance(action, Stamp | DeletePod)]


def test_the_pod_of_the_jobs_stateful_set_is_its_redis() -> None:
    bench = Bench()
    bench.see_pod("u-set")
    seen = bench.observer.observe(bench.record, NOW)
    assert (seen.store_pods, seen.redis is not None) == (1, True)
    assert bench.touched() == ["u-pod"]


def test_a_pod_of_another_set_is_neither_stamped_nor_deleted() -> None:
    bench = Bench()
    bench.see_pod("u-other")
    seen = bench.observer.observe(bench.record, NOW)
    assert (seen.store_pods, seen.redis) == (0, None)
    assert bench.touched() == []
    bench.see_pod("u-other", version=6, deletionTimestamp="2026-01-01T00:00:00Z")
    assert bench.touched() == []


def test_the_pod_of_a_deleted_stateful_set_is_still_the_jobs_redis() -> None:
    bench = Bench()
    bench.see_pod("u-set")
    assert bench.observer.store_pods(bench.record)
    bench.census.drop(KEY, "StatefulSet", "job-redis")
    assert [pod.uid for pod in bench.observer.store_pods(bench.record)] == ["u-pod"]
    bench.set_found("u-next")
    bench.see_pod("u-next", uid="u-later", version=9)
    assert [pod.uid for pod in bench.observer.store_pods(bench.record)] == ["u-later"]


def test_a_pod_of_an_earlier_job_of_the_name_is_not_the_jobs_redis() -> None:
    bench = Bench()
    bench.see_pod("u-set")
    assert bench.observer.store_pods(bench.record)
    meta = {"name": KEY[1], "namespace": KEY[0], "uid": "u-job-2", "resourceVersion": "20"}
    bench.cache.put_job({"metadata": meta, "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}}})
    assert bench.observer.store_pods(bench.record) == []
