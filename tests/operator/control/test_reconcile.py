"""A reconcile step of a job against a real API server and a real store: status writes and the operator's memory.

There are no nodes and no watch here: `Bench.see` plays their reports.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from openseer_core.plan.observation import GpuSeconds, StoreView, TemplateAnswer
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_operator.control import reconcile, templates
from openseer_operator.control.apply import Applier
from openseer_operator.control.metrics import OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.objects.reading import JobKey
from openseer_operator.settings import OperatorSettings
from tests.operator.job_store import ANN, JobStore
from tests.operator.stores import ACCESS
from tests.operator.tenant import store_pod

pytestmark = [pytest.mark.cluster, pytest.mark.redis]


class Bench:
    """Jobs of one namespace and the operator's parts for them, without the watch and the loop."""

    def __init__(self, api: Api, namespace: str, url: str, **settings: Any) -> None:
        chosen = OperatorSettings("default", "worker:1", "operator:1", identity="test", stores=ACCESS, **settings)
        self.api = api
        self.namespace = namespace
        self.url = url
        self.cache = Cache()
        self.board = OperatorState()
        self.stores = StorePoller(api, lambda key: None)
        census = Census(api, self.cache, (namespace,), lambda key: None)
        observer = Observer(self.cache, census, self.stores, chosen)
        applier = Applier(api, self.cache, census, self.stores, Events(api, chosen), chosen)
        self.reconciler = Reconciler(api, self.cache, census, self.stores, observer, applier, self.board, chosen)

    async def submit(self, name: str = "job", **spec: Any) -> JobKey:
        body = {
            "apiVersion": "openseer.dev/v1alpha1",
            "kind": "RolloutJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, "store": {"url": self.url}, **spec},
        }
        self.cache.put_job(await self.api.create("RolloutJob", self.namespace, body))
        return self.namespace, name

    async def reconcile(self, key: JobKey) -> tuple[float | None, bool]:
        """Runs a reconcile step; returns the delay that it requests, and whether it wrote the status."""
        before = await self.job(key)
        delay = await self.reconciler.reconcile(key)
        return delay, (await self.job(key)).get("status") != before.get("status")

    async def job(self, key: JobKey) -> dict[str, Any]:
        return await self.api.get("RolloutJob", *key)

    async def settle(self, key: JobKey) -> None:
        """Reconciles until the store has a view and a step does nothing."""
        async with asyncio.timeout(120.0):
            calm = 0
            while calm < 3 or self.stores.view(key) is None:
                _, wrote = await self.reconcile(key)
                calm = 0 if wrote else calm + 1
                await asyncio.sleep(0.1)

    async def until_read(self, key: JobKey, true: Callable[[StoreView], bool]) -> None:
        """Waits until the store's view satisfies the predicate."""
        async with asyncio.timeout(120.0):
            while (view := self.stores.view(key)) is None or not true(view):
                await asyncio.sleep(0.1)

    async def report_pod_status(self, key: JobKey, component: str, **status: Any) -> str:
        """Writes a status of the component's pod as its node would; returns the pod's uid."""
        raw = await self.api.get("Pod", self.namespace, f"{key[1]}-{component}")
        raw["status"] |= status
        raw["spec"]["nodeName"] = "n1"
        # Newer than every version that the server has sent.
        raw["metadata"]["resourceVersion"] = str(int(raw["metadata"]["resourceVersion"]) + 10**9)
        self.cache.put_pod(raw)
        return raw["metadata"]["uid"]

    async def see_ready(self, key: JobKey, component: str) -> str:
        return await self.report_pod_status(
            key, component, phase="Running", conditions=[{"type": "Ready", "status": "True"}]
        )


@pytest.fixture
async def server(tmp_path: Path, namespace: str) -> AsyncIterator[JobStore]:
    async with JobStore(tmp_path / "redis", namespace) as found:
        yield found


@pytest.fixture
async def bench(api: Api, namespace: str, server: JobStore) -> AsyncIterator[Bench]:
    found = Bench(api, namespace, server.url)
    yield found
    await found.stores.close()


async def test_no_status_is_written_without_a_change(bench: Bench) -> None:
    key = await bench.submit()
    await bench.settle(key)
    before = dict(bench.api.calls)
    delay = await bench.reconciler.reconcile(key)
    assert bench.api.calls == before
    assert delay is not None
    assert delay > 1.0


async def test_a_job_is_not_ready_before_its_first_reconcile_step(bench: Bench) -> None:
    key = await bench.submit()
    assert (await bench.job(key))["status"] == {"observedGeneration": -1}
    assert bench.reconciler.is_new(key)
    await bench.reconcile(key)
    found = await bench.job(key)
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    assert not bench.reconciler.is_new(key)


async def test_a_failed_job_is_revived_once_per_request(bench: Bench) -> None:
    key = await bench.submit(workers={"replicas": 1}, failurePolicy={"workerRestarts": 0})
    await bench.reconcile(key)
    ended = {"name": "worker", "state": {"terminated": {"exitCode": 7}}}
    await bench.report_pod_status(key, "worker-0", phase="Failed", containerStatuses=[ended])
    await bench.reconcile(key)
    assert (await bench.job(key))["status"]["reason"] == "RestartsExhausted"
    note = {"metadata": {"annotations": {"openseer.dev/revive": "1"}}}
    bench.cache.put_job(await bench.api.merge("RolloutJob", *key, note))
    await bench.reconcile(key)
    status = (await bench.job(key))["status"]
    assert (status["revivedBy"], status["workers"]["desired"], "completionTime" in status) == ("1", 1, False)
    _, wrote = await bench.reconcile(key)
    assert not wrote


async def test_a_failure_is_written_before_its_pods_deletion_at_any_rate_limit(
    api: Api, namespace: str, server: JobStore
) -> None:
    bench = Bench(api, namespace, server.url, status_writes=0.001)
    key = await bench.submit(workers={"replicas": 1})
    await bench.reconcile(key)
    await bench.reconcile(key)
    ended = {"name": "worker", "state": {"terminated": {"exitCode": 7}}}
    await bench.report_pod_status(key, "worker-0", phase="Failed", containerStatuses=[ended])
    _, wrote = await bench.reconcile(key)
    assert wrote
    (failure,) = (await bench.job(key))["status"]["failures"]
    assert (failure["member"], failure["count"]) == ("worker-0", 1)
    await bench.stores.close()


async def test_a_failed_status_write_stops_the_step_before_its_actions(bench: Bench) -> None:
    key = await bench.submit(workers={"replicas": 1})
    await bench.api.delete("RolloutJob", *key)
    with pytest.raises(reconcile.NotThereError):
        await bench.reconciler.reconcile(key)
    assert bench.api.calls["POST", "Pod", 201] == 0


@pytest.mark.slow
async def test_informative_status_writes_have_a_rate_limit(
    api: Api, namespace: str, server: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(api, namespace, server.url, status_writes=2.0)
    keys = [await bench.submit(f"job-{number}", workers={"replicas": 1}) for number in range(6)]
    for _ in range(3):  # each waiting job gets its turn
        await asyncio.gather(*(bench.settle(key) for key in keys))
        await asyncio.sleep(1.0)
    for key in keys:
        await bench.see_ready(key, "worker-0")
    now = api.clock.now()
    monkeypatch.setattr(api.clock, "now", lambda: now)  # six steps take no time, on a machine of any speed
    passes = [await bench.reconcile(key) for key in keys]
    at_once = [wrote for _, wrote in passes].index(False)
    assert 2 <= at_once <= 4
    assert not any(wrote for _, wrote in passes[at_once:])
    waits = [delay or 0.0 for delay, _ in passes[at_once:]]
    assert 0.0 < waits[0] < waits[-1] <= 2.0
    assert waits == sorted(waits)
    monkeypatch.setattr(api.clock, "now", lambda: now + waits[0])
    assert (await bench.reconcile(keys[at_once]))[1]
    await bench.stores.close()


async def test_progress_waits_for_its_interval_and_readiness_does_not(
    bench: Bench, server: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = await server.submit("a")
    key = await bench.submit(workers={"replicas": 1})
    await bench.settle(key)
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 3600.0)
    await server.extend(claims[0], 100)
    await bench.until_read(key, lambda view: view.progress.tokens == 100)
    assert not (await bench.reconcile(key))[1]
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 0.0)  # its interval is over
    assert (await bench.reconcile(key))[1]
    assert (await bench.job(key))["status"]["progress"]["tokens"] == 100

    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 3600.0)
    await server.extend(claims[1], 50)
    await bench.until_read(key, lambda view: view.progress.tokens == 150)
    assert not (await bench.reconcile(key))[1]
    await bench.see_ready(key, "worker-0")
    assert (await bench.reconcile(key))[1]
    status = (await bench.job(key))["status"]
    assert (status["workers"]["summary"], status["progress"]["tokens"]) == ("1/1", 150)


async def test_idle_gpus_are_a_metric_at_once_and_cause_no_status_write(
    bench: Bench, server: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(reconcile, "ESTIMATES_SECONDS", 0.0)
    key = await bench.submit(workers={"replicas": 1})
    await bench.settle(key)
    await bench.until_read(key, lambda _: bench.stores.tokens_per_second(key) is not None)
    await bench.settle(key)
    await server.store.heartbeat(ANN, Heartbeat(WorkerState.IDLE, idle_seconds=70.0))
    async with asyncio.timeout(120.0):
        while bench.board.jobs[key].counters.gpu_seconds != GpuSeconds(idle=70):
            _, wrote = await bench.reconcile(key)
            assert not wrote
            await asyncio.sleep(0.1)
    assert "gpuSeconds" not in (await bench.job(key))["status"]
    await bench.see_ready(key, "worker-0")
    await bench.settle(key)
    assert (await bench.job(key))["status"]["gpuSeconds"] == {"idle": 70, "busy": 0}


async def test_a_sick_gpu_is_reported_on_its_node_and_the_worker_leaves(
    api: Api, namespace: str, server: JobStore
) -> None:
    bench = Bench(api, namespace, server.url, node_condition="GpuReady")
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"conditions": [ready]}}
    await api.create("Node", None, node)
    key = await bench.submit(workers={"replicas": 1})
    await bench.settle(key)
    uid = await bench.see_ready(key, "worker-0")
    await server.heartbeat(ANN, "sick", pod=uid, sick="Xid 79")
    await bench.until_read(key, lambda view: uid in view.reports)
    await bench.reconcile(key)
    found = {condition["type"]: condition for condition in (await api.get("Node", None, "n1"))["status"]["conditions"]}
    assert set(found) == {"Ready"}, "a job's report set a condition"
    (sick,) = (await bench.job(key))["status"]["sickNodes"]
    assert (sick["node"], sick["worker"]) == ("n1", "worker-0")
    assert api.calls["DELETE", "Pod", 200] == 1
    await bench.stores.close()


async def test_an_impossible_job_is_refused_once_with_its_errors(bench: Bench) -> None:
    key = await bench.submit(workers={"template": {"spec": {"containers": [{"name": "worker", "env": 5}]}}})
    delay, wrote = await bench.reconcile(key)
    assert (delay, wrote) == (None, True)
    status = (await bench.job(key))["status"]
    ready = next(condition for condition in status["conditions"] if condition["type"] == "Ready")
    assert (status["reason"], ready["status"]) == ("InvalidManifest", "False")
    assert "spec.workers.template" in ready["message"]
    before = dict(bench.api.calls)
    assert await bench.reconciler.reconcile(key) is None
    assert bench.api.calls == before


async def test_no_memory_is_kept_of_a_deleted_job(bench: Bench) -> None:
    key = await bench.submit()
    await bench.settle(key)
    assert key in bench.board.jobs
    assert len(bench.stores) == 1
    record = bench.cache.job(key)
    assert record is not None
    bench.cache.drop_job(key, record.uid)
    assert await bench.reconciler.reconcile(key) is None
    assert key not in bench.board.jobs
    assert len(bench.stores) == 0


async def test_a_managed_store_is_read_after_its_pod_is_ready(bench: Bench) -> None:
    key = await bench.submit(store={})
    await bench.reconcile(key)
    assert len(bench.stores) == 0
    pod = store_pod(await bench.api.get("StatefulSet", bench.namespace, "job-redis"))
    pod["metadata"] |= {"namespace": bench.namespace, "uid": "r", "resourceVersion": "1"}
    pod["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    bench.cache.put_pod(pod)
    await bench.reconcile(key)
    assert len(bench.stores) == 1


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    found = next(entry for entry in status["conditions"] if entry["type"] == kind)
    return found["status"], found["message"]


WRONG_TEMPLATES: list[tuple[dict[str, Any], str, str]] = [
    ({"workers": {"template": {"spec": {"nodeSelectr": {"a": "b"}}}}}, "workers", 'unknown field "spec.nodeSelectr"'),
    (
        {"driver": {"template": {"spec": {"priority": "high"}}}},
        "driver",
        "cannot unmarshal string into Go struct field",
    ),
    ({"driver": {"template": {"spec": {"dnsPolicy": "Mine"}}}}, "driver", 'Unsupported value: "Mine"'),
    (
        {"workers": {"template": {"spec": {"nodeSelector": {"not a label": "x"}}}}},
        "workers",
        'spec.nodeSelector: Invalid value: "not a label"',
    ),
    (
        {"store": {"template": {"spec": {"containers": [{"name": "redis", "enw": []}]}}}},
        "store",
        'unknown field "spec.template.spec.containers[0].enw"',
    ),
]


@pytest.mark.parametrize(("spec", "part", "words"), WRONG_TEMPLATES, ids=[words for *_, words in WRONG_TEMPLATES])
async def test_a_refused_template_is_reported_with_the_servers_message(
    bench: Bench, spec: dict[str, Any], part: str, words: str
) -> None:
    whole: dict[str, Any] = {"store": {}, **spec}
    key = await bench.submit(**whole)
    await bench.reconcile(key)
    status = (await bench.job(key))["status"]
    assert status["reason"] == "TemplateInvalid"
    for kind, expected in (("TemplateInvalid", "True"), ("Ready", "False")):
        found, message = condition(status, kind)
        assert found == expected
        assert message.startswith(f"spec.{part}.template: ")
        assert words in message
    before = dict(bench.api.calls)
    assert await bench.reconciler.reconcile(key) == templates.RECHECK_SECONDS[TemplateAnswer.INVALID]
    assert bench.api.calls == before
    assert {kind for verb, kind, answer in before if (verb, answer) == ("POST", 201)} == {"RolloutJob"}


async def test_a_template_is_tried_once_and_again_after_a_correction(bench: Bench) -> None:
    key = await bench.submit(workers={"template": {"spec": {"nodeSelectr": {}}}})
    await bench.reconcile(key)
    for spec in ({"nodeSelector": {"a": "b"}, "nodeSelectr": None}, {}):
        patch = {"spec": {"workers": {"replicas": 2, "template": {"spec": spec}}}}
        bench.cache.put_job(await bench.api.merge("RolloutJob", *key, patch))
        await bench.reconcile(key)
    status = (await bench.job(key))["status"]
    assert condition(status, "TemplateInvalid") == ("False", "")
    assert bench.api.calls["POST", "Pod", 400] == 1
    # One dry run, two workers, one driver.
    assert bench.api.calls["POST", "Pod", 201] == 4


async def test_a_deleted_job_is_released_with_any_template(bench: Bench) -> None:
    key = await bench.submit(store={}, workers={"template": {"spec": {"nodeSelectr": {}}}})
    record = bench.cache.job(key)
    assert record is not None
    await bench.api.merge("RolloutJob", *key, {"metadata": {"finalizers": ["openseer.dev/store"]}})
    await bench.api.delete("RolloutJob", *key)
    bench.cache.put_job(await bench.job(key))
    await bench.reconciler.reconcile(key)
    assert bench.api.calls["POST", "Pod", 400] == 0
    with pytest.raises(reconcile.NotThereError):
        await bench.job(key)


async def test_a_running_job_survives_a_refused_template(bench: Bench) -> None:
    key = await bench.submit(workers={"replicas": 2})
    await bench.settle(key)
    changes: list[dict[str, Any]] = [{"replicas": 1, "template": {"spec": {"nodeSelectr": {}}}}, {"template": None}]
    for workers in changes:
        bench.cache.put_job(await bench.api.merge("RolloutJob", *key, {"spec": {"workers": workers}}))
        await bench.reconcile(key)
        await bench.settle(key)
        names = {record.pod.name for record in bench.cache.pods(key) if not record.pod.leaving}
        assert {name for name in names if "worker" in name} == {f"{key[1]}-worker-0"}
    assert condition((await bench.job(key))["status"], "TemplateInvalid") == ("False", "")


async def test_a_policys_refusal_is_not_blamed_on_the_template(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no team label"

    async def denied(*_: object) -> None:
        raise KubeApiError(words, 422)

    monkeypatch.setattr(bench.api, "try_create", denied)
    key = await bench.submit(workers={"template": {"spec": {"nodeSelector": {"a": "b"}}}})
    await bench.reconcile(key)
    told = ("Unknown", f"spec.workers.template: {words}")
    assert condition((await bench.job(key))["status"], "TemplateInvalid") == told
