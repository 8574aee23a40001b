"""An object that Kubernetes refuses delays no other, and the status has Kubernetes' own message."""

import json
import time
import urllib.error
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openseer_core.plan.actions import Action, CreatePod, DeletePod, DeleteStore, Purge, RemoveFinalizer, Stamp
from openseer_operator.control.apply import Applier, ApplyTarget
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api
from openseer_operator.kube.events import Events
from openseer_operator.settings import OperatorSettings
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ACCESS
from tests.operator.tenant import Tenant

pytestmark = [pytest.mark.cluster]
OWN_STORE = {"url": "redis://127.0.0.1:1/0"}
RULE_SECONDS = 120.0


@pytest.fixture
async def tenant(api: Api, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Tenant]:
    found = Tenant(api, control_plane, namespace)
    yield found
    await found.close()


class Rules:
    """An administrator's policies in a tenant's namespace."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._path = f"/api/v1/namespaces/{namespace}"
        self._namespace = namespace

    def quota(self, resource: str, most: int) -> None:
        """Creates a quota with its status, which its controller would write. A new quota counts from 0."""
        hard = {"hard": {resource: str(most)}}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": hard}
        apply = "?fieldManager=admin&force=true"
        self._send(f"{self._path}/resourcequotas/quota{apply}", quota, "PATCH", "application/apply-patch+yaml")
        status = {"status": hard | {"used": {resource: "0"}}}
        self._send(f"{self._path}/resourcequotas/quota/status", status, "PATCH", "application/merge-patch+json")

    def limit_range(self) -> None:
        least = {"type": "Container", "min": {"memory": "1Ti"}}
        body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "large"}, "spec": {"limits": [least]}}
        self._send(f"{self._path}/limitranges", body)

    def pod_security(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self._send(self._path, {"metadata": {"labels": labels}}, "PATCH", "application/merge-patch+json")

    def webhook(self) -> None:
        """Creates a required webhook for pods that does not answer."""
        hook = {
            "name": "pods.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        api = "admissionregistration.k8s.io/v1"
        kind = "ValidatingWebhookConfiguration"
        body = {"apiVersion": api, "kind": kind, "metadata": {"name": self._namespace}, "webhooks": [hook]}
        self._send(f"/apis/{api}/validatingwebhookconfigurations", body)

    def await_answer(self, *, refused: bool) -> None:
        """Waits until the server applies its new rules, so that it refuses or accepts pods here."""
        containers = [{"name": "c", "image": "i", "resources": {"requests": {"memory": "1Mi"}}}]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": {"containers": containers}}
        end = time.monotonic() + RULE_SECONDS
        while self._is_refused(pod) is not refused:
            assert time.monotonic() < end
            time.sleep(0.05)

    def _is_refused(self, pod: dict[str, Any]) -> bool:
        try:
            self._send(f"{self._path}/pods?dryRun=All", pod)
        except urllib.error.HTTPError:
            return True
        return False

    def _send(self, path: str, body: dict[str, Any], method: str = "POST", content: str = "application/json") -> None:
        self._plane.request(path, json.dumps(body).encode(), method, content)


@pytest.fixture
def rules(control_plane: ControlPlane, namespace: str) -> Rules:
    return Rules(control_plane, namespace)


async def test_a_quota_serves_store_and_driver_before_workers(tenant: Tenant, rules: Rules) -> None:
    rules.quota("pods", 4)
    await tenant.start(workers={"replicas": 6})
    assert len(await tenant.pods()) == 3
    assert "driver" in await tenant.pods()
    status, reason, message = (await tenant.conditions())["PodsCreated"]
    assert (status, reason) == ("False", "PodsNotCreated")
    assert "exceeded quota: quota, requested: pods=1, used: pods=4, limited: pods=4" in message
    assert len(await tenant.events("PodsNotCreated")) <= 2, "the same event was written twice"

    rules.quota("pods", 99)
    rules.await_answer(refused=False)
    await tenant.look(2)
    assert len(await tenant.pods()) == 7
    assert (await tenant.conditions())["PodsCreated"] == ("True", "Created", "")


async def test_a_policy_with_an_unknown_field_is_refused_not_widened(
    api: Api, control_plane: ControlPlane, namespace: str
) -> None:
    mistyped = Tenant(api, control_plane, namespace, egress=({"too": []},))
    await mistyped.start(store=OWN_STORE)
    (told,) = await mistyped.events("PodsNotCreated")
    assert 'unknown field "spec.egress[2].too"' in told
    async for policies in api.pages("NetworkPolicy", (namespace,)):
        assert policies == []
    await mistyped.close()


async def test_after_a_refusal_one_pod_per_step_is_tried(tenant: Tenant, rules: Rules) -> None:
    rules.quota("pods", 1)
    await tenant.start(store=OWN_STORE, workers={"replicas": 40})
    assert await tenant.pods() == {"driver"}
    before = tenant.api.calls["POST", "Pod", 403]
    await tenant.look()
    assert tenant.api.calls["POST", "Pod", 403] == before + 1


async def test_no_worker_takes_the_quota_of_a_waiting_driver(tenant: Tenant, rules: Rules) -> None:
    await prepare(tenant, workers={"replicas": 2})
    rules.quota("pods", 0)
    rules.await_answer(refused=True)
    await tenant.look(2)
    assert await tenant.pods() == set()
    assert "Pod job-driver: " in (await tenant.conditions())["PodsCreated"][2]
    rules.quota("pods", 1)
    rules.await_answer(refused=False)
    await tenant.look()
    assert await tenant.pods() == {"driver"}


async def prepare(tenant: Tenant, **spec: Any) -> None:
    """Prepares a job without pods except for that of its Redis."""
    await tenant.submit(**spec)
    await tenant.look()
    await tenant.place_store()


PRIVILEGED = {"template": {"spec": {"hostNetwork": True}}}


@pytest.mark.parametrize(
    ("rule", "workers", "words"),
    [
        ("limit_range", {}, "minimum memory usage per Container is 1Ti, but request is 512Mi"),
        ("pod_security", PRIVILEGED, 'violates PodSecurity "restricted:latest": host namespaces'),
        ("webhook", {}, 'failed calling webhook "pods.example.com"'),
    ],
)
async def test_a_refusal_of_pods_is_reported_with_its_own_message(
    tenant: Tenant, rules: Rules, rule: str, workers: dict[str, Any], words: str
) -> None:
    await prepare(tenant, workers=workers)
    getattr(rules, rule)()
    rules.await_answer(refused=True)
    await tenant.look(2)
    assert (await tenant.conditions())["PodsCreated"][:2] == ("False", "PodsNotCreated")
    assert words in (await tenant.conditions())["PodsCreated"][2]
    assert any(words in text for text in await tenant.events("PodsNotCreated"))


@pytest.mark.parametrize(
    ("resource", "named"),
    [
        ("persistentvolumeclaims", "PersistentVolumeClaim job-output: "),
        ("count/statefulsets.apps", "StatefulSet job-redis: "),
        ("count/secrets", "Secret job-redis-"),
    ],
)
async def test_a_refusal_of_a_prerequisite_is_reported_before_any_pod(
    tenant: Tenant, rules: Rules, resource: str, named: str
) -> None:
    rules.quota(resource, 0)
    await tenant.start(workers={"replicas": 1})
    status, _, message = (await tenant.conditions())["PodsCreated"]
    assert status == "False"
    assert message.startswith(named)
    assert f"limited: {resource}=0" in message
    assert await tenant.pods() == set()
    assert (await tenant.conditions())["Ready"] == ("False", "PodsNotCreated", message)


@pytest.mark.parametrize("made", ["Pod job-redis-0", "Claim data-job-redis-0 Pod job-redis-0"])
async def test_a_redis_without_a_pod_reports_its_controllers_refusal(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    monkeypatch.setattr("openseer_core.plan.store.STORE_POD_SECONDS", 0.0)
    await tenant.submit(workers={"replicas": 1})
    await tenant.look()
    stateful_set = await tenant.find("StatefulSet", "job-redis")
    words = f"create {made} in StatefulSet job-redis failed error: exceeded quota"
    for number, (uid, text) in enumerate([("earlier", "of an earlier set"), (stateful_set["metadata"]["uid"], words)]):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"job-redis.{number}"},
            "involvedObject": {"kind": "StatefulSet", "namespace": tenant.key[0], "name": "job-redis", "uid": uid},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": text,
            "lastTimestamp": f"2026-01-01T00:00:0{9 - number}Z",
        }
        await tenant.api.create("Event", tenant.key[0], event)
    await tenant.look(2)
    assert await tenant.pods() == set()
    assert (await tenant.conditions())["PodsCreated"][2] == f"StatefulSet job-redis: {words}"
    await tenant.place_store()
    await tenant.look(2)
    assert await tenant.pods() == {"driver", "worker-0"}


class Bench:
    """One job with pods, and an applier without a control loop."""

    def __init__(self, tenant: Tenant) -> None:
        settings = OperatorSettings("default", "worker:1", "operator:1", identity="test", stores=ACCESS)
        self.tenant = tenant
        self.poller = StorePoller(tenant.api, lambda key: None, access=ACCESS)
        events = Events(tenant.api, settings)
        self._applier = Applier(tenant.api, tenant.cache, tenant.census, self.poller, events, settings)

    async def apply(self, *actions: Action) -> None:
        record = self.tenant.cache.job(self.tenant.key)
        assert record is not None
        assert record.job is not None
        await self._applier.apply(ApplyTarget(record, record.job, "worker:1", "job-redis", time.time()), actions)


async def test_drains_and_stamps_are_done_though_pods_are_refused(tenant: Tenant, rules: Rules) -> None:
    await tenant.start(store=OWN_STORE, workers={"replicas": 3})
    uids = {record.pod.name: record.pod.uid for record in tenant.cache.pods(tenant.key)}
    rules.quota("pods", 0)
    rules.await_answer(refused=True)
    bench = Bench(tenant)
    await bench.apply(
        *(CreatePod(index, 0, 0) for index in range(3, 8)),
        DeletePod("job-worker-0", uids["job-worker-0"], "its GPU is sick"),
        DeletePod("job-worker-1", uids["job-worker-1"], "its node does not answer", force=True),
        Stamp("job-worker-2", uids["job-worker-2"], busy=True),
    )
    assert await tenant.pods() == {"driver", "worker-2"}
    notes = (await tenant.find("Pod", "job-worker-2"))["metadata"]["annotations"]
    assert notes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert [refusal.kind for refusal in tenant.census.refusals(tenant.key)][:1] == ["Pod"]


async def test_dependent_actions_stop_at_a_failure_and_others_are_done(tenant: Tenant) -> None:
    await tenant.start(store=OWN_STORE, workers={"replicas": 1})
    bench = Bench(tenant)
    with pytest.raises(KeyError):  # its store was never watched
        await bench.apply(Purge(), RemoveFinalizer(), CreatePod(7, 0, 0))
    assert (await tenant.api.get("RolloutJob", *tenant.key))["metadata"]["finalizers"] == ["openseer.dev/store"]
    assert "worker-7" in await tenant.pods(), "an action without the store was not done"
    await bench.apply(DeleteStore())
