"""Actions as calls to a real API server: each may be repeated, and none changes objects that are not the job's own."""

import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from openseer_core.plan.actions import (
    AddFinalizer,
    Announce,
    ApplyShared,
    CreatePod,
    DeleteJob,
    DeletePod,
    DeleteStore,
    EndSidecars,
    RemoveFinalizer,
    ScaleStore,
    Stamp,
)
from openseer_core.plan.observation import Pod
from openseer_operator.control.apply import Applier, ApplyTarget
from openseer_operator.control.observe import RESIZE_SECONDS, Observer
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, NotThereError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.objects.reading import JobRecord
from openseer_operator.settings import FINALIZER, OperatorSettings
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ACCESS

pytestmark = [pytest.mark.cluster]
SETTINGS = OperatorSettings(
    namespace="default", worker_image="worker:1", store_image="operator:1", identity="test", stores=ACCESS
)


@dataclass
class Bench:
    """One job in the cluster with observer and applier."""

    api: Api
    cache: Cache
    census: Census
    stores: StorePoller
    observer: Observer
    applier: Applier
    key: tuple[str, str]

    @property
    def record(self) -> JobRecord:
        found = self.cache.job(self.key)
        assert found is not None
        return found

    @property
    def pods(self) -> tuple[Pod, ...]:
        return self.cache.pods_of(self.record)

    def target(self) -> ApplyTarget:
        assert self.record.job is not None
        secret = self.observer.store_secret(self.record, self.record.job)
        return ApplyTarget(self.record, self.record.job, "worker:1", secret, time.time())

    async def apply(self, *actions: Any) -> float | None:
        return await self.applier.apply(self.target(), actions)

    async def pod(self, name: str) -> dict[str, Any]:
        return await self.api.get("Pod", "default", name)


async def bench(api: Api, settings: OperatorSettings = SETTINGS, **spec: Any) -> Bench:
    name = f"job-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, **spec},
    }
    cache = Cache()
    stores = StorePoller(api, lambda key: None, access=ACCESS)
    census = Census(api, cache, ("default",), lambda key: None)
    cache.put_job(await api.create("RolloutJob", "default", body))
    applier = Applier(api, cache, census, stores, Events(api, settings), settings)
    return Bench(api, cache, census, stores, Observer(cache, census, stores, settings), applier, ("default", name))


@pytest.fixture
async def job(api: Api) -> Bench:
    begun = await bench(api)
    namespace, name = begun.key
    status = {"storeSecret": begun.target().secret}  # written first by the first reconcile step of a job
    head = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"namespace": namespace, "name": name},
    }
    begun.cache.put_job(await api.apply("RolloutJob", {**head, "status": status}, "status"))
    return begun


async def test_shared_objects_exist_after_apply_and_a_second_apply_changes_none(job: Bench) -> None:
    before = job.observer.observe(job.record, 0.0)
    assert before.shared
    assert not any(before.shared.values())
    for _ in range(2):
        await job.apply(*(ApplyShared(key) for key in before.shared), ScaleStore(1))
        seen = job.observer.observe(job.record, 0.0)
        assert all(seen.shared.values())
        assert seen.store_replicas == 1


async def test_a_census_finds_the_same_objects_as_the_answers_of_writes(job: Bench, api: Api) -> None:
    keys = job.observer.observe(job.record, 0.0).shared
    await job.apply(*(ApplyShared(key) for key in keys), ScaleStore(1))
    census = Census(api, job.cache, ("default",), lambda key: None)
    await census.fill()
    fresh = Observer(job.cache, census, StorePoller(api, lambda key: None), SETTINGS)
    assert fresh.observe(job.record, 0.0) == job.observer.observe(job.record, 0.0)


async def test_scaling_and_deletion_of_a_store_are_known_at_once(job: Bench) -> None:
    await job.apply(ApplyShared("serviceAccount"), ScaleStore(1))
    await job.apply(ScaleStore(0))
    assert job.observer.observe(job.record, 0.0).store_replicas == 0
    found = await job.api.get("StatefulSet", "default", f"{job.key[1]}-redis")
    assert found["spec"]["replicas"] == 0
    for _ in range(2):
        await job.apply(DeleteStore())
    assert job.observer.observe(job.record, 0.0).store_replicas is None


async def test_a_pod_is_created_once_and_known_at_once(job: Bench) -> None:
    for _ in range(2):
        await job.apply(CreatePod(None, 0, 2), CreatePod(1, 0, 0))
    assert sorted((pod.component, pod.attempt) for pod in job.pods) == [("driver", 2), ("worker-1", 0)]
    assert job.api.calls["POST", "Pod", 409] == 2


async def test_a_pod_avoids_nodes_by_their_names(job: Bench) -> None:
    await job.apply(CreatePod(0, 0, 0, ("n1", "n2")), CreatePod(None, 0, 0, ("n3",)))
    assert {pod.component: pod.avoids for pod in job.pods} == {"worker-0": {"n1", "n2"}, "driver": {"n3"}}


async def test_a_foreign_pod_of_the_name_is_not_adopted_and_is_reported(job: Bench) -> None:
    name = f"{job.key[1]}-worker-0"
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}}
    await job.api.create("Pod", "default", body | {"spec": {"containers": [{"name": "c", "image": "i"}]}})
    await job.apply(CreatePod(0, 0, 0), CreatePod(1, 0, 0))
    assert [(refusal.name, refusal.taken) for refusal in job.census.refusals(job.key)] == [(name, True)]
    assert [pod.component for pod in job.pods] == ["worker-1"], "the other pods of the stage were not created"
    assert "NameTaken" in await reasons(job)


async def test_a_pod_is_deleted_only_if_its_uid_matches(job: Bench) -> None:
    await job.apply(CreatePod(0, 0, 0))
    name = job.pods[0].name
    await job.apply(DeletePod(name, "another-uid", "test"))
    assert (await job.pod(name))["metadata"]["uid"] == job.pods[0].uid
    await job.apply(DeletePod(name, job.pods[0].uid, "test"))
    with pytest.raises(NotThereError):
        await job.pod(name)


async def test_deleting_a_missing_pod_succeeds(job: Bench) -> None:
    await job.apply(CreatePod(0, 0, 0))
    gone = job.pods[0]
    await job.api.delete("Pod", "default", gone.name, at_once=True)
    await job.apply(DeletePod(gone.name, gone.uid, "test"))
    assert job.pods == ()


async def test_the_sidecars_of_a_pod_are_ended_by_its_active_deadline(job: Bench) -> None:
    await job.apply(CreatePod(None, 0, 0))
    pod = job.pods[0]
    for _ in range(2):
        await job.apply(EndSidecars(pod.name, pod.uid))
    found = await job.pod(pod.name)
    assert found["spec"]["activeDeadlineSeconds"] == 1
    assert "deletionTimestamp" not in found["metadata"], "the pod was deleted with its log"
    await job.apply(EndSidecars(pod.name, "another-uid"))  # a pod with another uid is not changed


async def test_the_disruption_budget_leaves_out_unschedulable_pods(api: Api) -> None:
    job = await bench(api, workers={"replicas": 8})
    await job.apply(*(CreatePod(index, 0, 0) for index in range(8)), ApplyShared("disruptionBudget"))
    for pod in job.pods[:4]:
        raw = await job.pod(pod.name)
        full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
        raw["status"]["conditions"] = [full]
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 10**9)
        job.cache.put_pod(raw)
    assert not job.observer.observe(job.record, 0.0).shared["disruptionBudget"]
    await job.apply(ApplyShared("disruptionBudget"))
    assert job.observer.observe(job.record, 0.0).shared["disruptionBudget"]
    budget = await api.get("PodDisruptionBudget", "default", f"{job.key[1]}-workers")
    assert budget["spec"]["minAvailable"] == 2


async def test_many_stamps_are_written_at_a_limited_rate(api: Api) -> None:
    job = await bench(api, OperatorSettings("default", "w", "s", stamps=2.0, stores=ACCESS))
    await job.apply(*(CreatePod(index, 0, 0) for index in range(6)))
    wait = await job.apply(*(Stamp(pod.name, pod.uid, True) for pod in job.pods))
    stamped = [pod for pod in job.pods if pod.stamp]
    assert 2 <= len(stamped) <= 4
    assert wait is not None
    assert 0.0 < wait < 1.0


async def test_a_stamp_of_a_replaced_pod_is_left_out(job: Bench) -> None:
    await job.apply(CreatePod(0, 0, 0))
    await job.apply(Stamp(job.pods[0].name, "another-uid", True))
    assert (await job.pod(job.pods[0].name))["metadata"]["annotations"].get("karpenter.sh/do-not-disrupt") is None


async def test_a_stamp_is_set_for_both_autoscalers_and_removed(job: Bench) -> None:
    await job.apply(CreatePod(0, 0, 0))
    for busy, safe, disrupt in ((True, "false", "true"), (False, "true", None)):
        await job.apply(Stamp(job.pods[0].name, job.pods[0].uid, busy))
        found = (await job.pod(job.pods[0].name))["metadata"]["annotations"]
        assert found["cluster-autoscaler.kubernetes.io/safe-to-evict"] == safe
        assert found.get("karpenter.sh/do-not-disrupt") == disrupt
        assert job.pods[0].stamp is busy


async def test_the_finalizer_holds_a_deleted_job_until_its_removal(job: Bench) -> None:
    await job.apply(AddFinalizer())
    assert job.record.finalizers == (FINALIZER,)
    await job.apply(DeleteJob())
    left = await job.api.get("RolloutJob", *job.key)
    assert left["metadata"]["deletionTimestamp"]
    job.cache.put_job(left)
    await job.apply(RemoveFinalizer())
    with pytest.raises(NotThereError):
        await job.api.get("RolloutJob", *job.key)


async def test_events_are_written_after_failed_calls_and_repeats_are_counted(job: Bench) -> None:
    foreign = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{job.key[1]}-worker-0"}}
    await job.api.create("Pod", "default", foreign | {"spec": {"containers": [{"name": "c", "image": "i"}]}})
    for _ in range(2):
        await job.apply(CreatePod(0, 0, 0), Announce(False, "Started", "1 worker"))
    found = [event for event in await events(job) if event["reason"] == "Started"]
    assert [(event["count"], event["type"], event["message"]) for event in found] == [(2, "Normal", "1 worker")]


async def events(job: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for page in job.api.pages("Event", ("default",)):
        found += [event for event in page if event["involvedObject"].get("uid") == job.record.uid]
    return found


async def reasons(job: Bench) -> set[str]:
    return {event["reason"] for event in await events(job)}


async def change(job: Bench, **store: Any) -> None:
    job.cache.put_job(await job.api.merge("RolloutJob", *job.key, {"spec": {"store": store}}))


async def redis_set(job: Bench) -> dict[str, Any]:
    return await job.api.get("StatefulSet", "default", f"{job.key[1]}-redis")


async def test_more_memory_for_a_running_redis_keeps_its_claim(job: Bench) -> None:
    await job.apply(ApplyShared("serviceAccount"), ScaleStore(1))
    before = await redis_set(job)
    await change(job, resources={"limits": {"memory": "8Gi"}}, persistence={"size": "9Gi"})
    assert not job.observer.observe(job.record, 0.0).store_current
    await job.apply(ScaleStore(1))
    found = await redis_set(job)
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    assert found["spec"]["volumeClaimTemplates"] == before["spec"]["volumeClaimTemplates"]
    seen = job.observer.observe(job.record, 0.0)
    assert (seen.store_current, seen.volume_problem) == (True, "")


async def make_claim(job: Bench, **spec: Any) -> str:
    """Creates a claim as the StatefulSet's controller would; there is no controller here."""
    name, redis = f"data-{job.key[1]}-redis-0", (await redis_set(job))["metadata"]
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": redis["name"], "uid": redis["uid"]}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": [owner]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "4Gi"}}, **spec},
    }
    await job.api.create("PersistentVolumeClaim", "default", body)
    return name


async def requested(job: Bench, claim: str) -> str:
    found = await job.api.get("PersistentVolumeClaim", "default", claim)
    return found["spec"]["resources"]["requests"]["storage"]


async def test_a_volume_grows_if_its_class_allows_it(job: Bench, control_plane: ControlPlane) -> None:
    grows = {"metadata": {"name": job.key[1]}, "provisioner": "example.com/disk", "allowVolumeExpansion": True}
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
    control_plane.request("/apis/storage.k8s.io/v1/storageclasses", json.dumps({**kind, **grows}).encode())
    await job.apply(ApplyShared("serviceAccount"), ScaleStore(1))
    claim = await make_claim(job, storageClassName=job.key[1], volumeName="some")
    bound = json.dumps({"status": {"phase": "Bound", "capacity": {"storage": "4Gi"}}}).encode()
    path = f"/api/v1/namespaces/default/persistentvolumeclaims/{claim}/status"
    control_plane.request(path, bound, "PATCH", "application/merge-patch+json")
    await change(job, persistence={"size": "9Gi"})
    assert not job.observer.observe(job.record, 0.0).store_current
    await job.apply(ScaleStore(1))
    seen = job.observer.observe(job.record, 0.0)
    assert (seen.store_current, seen.volume_problem, await requested(job, claim)) == (True, "", "9Gi")


async def test_a_volume_that_cannot_grow_is_reported_and_tried_again(job: Bench) -> None:
    await job.apply(ApplyShared("serviceAccount"), ScaleStore(1))
    claim = await make_claim(job)
    assert job.observer.observe(job.record, 0.0).store_current
    await change(job, persistence={"size": "9Gi"})
    assert not job.observer.observe(job.record, time.time()).store_current
    await job.apply(ScaleStore(1))
    later = time.time() + RESIZE_SECONDS
    seen = job.observer.observe(job.record, later)
    assert not seen.store_current
    assert seen.volume_problem.startswith(f"{claim}: ")
    assert job.observer.observe(job.record, later - RESIZE_SECONDS).store_current, "a retry is due too early"
    await change(job, persistence={"size": "4Gi"})
    await job.apply(ScaleStore(1))
    seen = job.observer.observe(job.record, 0.0)
    assert (seen.store_current, seen.volume_problem) == (True, "")


async def test_a_claim_that_is_not_of_the_jobs_redis_is_not_resized(job: Bench) -> None:
    await job.apply(ApplyShared("serviceAccount"), ScaleStore(1))
    claim = await make_claim(job)
    await job.api.merge("PersistentVolumeClaim", "default", claim, {"metadata": {"ownerReferences": None}})
    patches = job.api.calls["PATCH", "PersistentVolumeClaim", 200]
    await change(job, persistence={"size": "9Gi"})
    await job.apply(ScaleStore(1))
    assert (
        "found a claim that does not belong to this job's Redis" in job.observer.observe(job.record, 0.0).volume_problem
    )
    assert (await requested(job, claim), job.api.calls["PATCH", "PersistentVolumeClaim", 200]) == ("4Gi", patches)
