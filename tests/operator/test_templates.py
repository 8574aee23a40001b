"""A job whose templates the server does not judge, because it does not answer or others refuse first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openseer_operator.control import templates
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.objects.reading import JobKey
from tests.operator.control_plane import ControlPlane
from tests.operator.tenant import Tenant

pytestmark = [pytest.mark.cluster]
OWN_STORE = {"url": "redis://127.0.0.1:1/0"}
TEMPLATE = {"template": {"spec": {"nodeSelector": {"a": "b"}}}}
INVALID = KubeApiError("Pod is invalid: spec.nodeSelector: Invalid value", 422)
BUSY = KubeApiError("the server has received too many requests", 429)


WEBHOOK = KubeApiError('failed calling webhook "pods.example.com": timeout', 500)
DENIED = KubeApiError('pods "x" is forbidden: violates PodSecurity "restricted:latest"', 403)
QUOTA = KubeApiError('pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=4', 403)
REAL_ONLY = KubeApiError('admission webhook "pods.example.com" does not support dry run: sideEffects', 400)


class Server:
    """A server that answers each dry run with `answer` (None: accepted) and accepts the pods themselves."""

    def __init__(self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: KubeApiError | None = None
        self.asked = 0
        monkeypatch.setattr(tenant.api, "try_create", self._try_create)
        monkeypatch.setattr(tenant.stores, "settling", self._settling)
        monkeypatch.setattr(templates, "RECHECK_SECONDS", dict.fromkeys(templates.RECHECK_SECONDS, 0.0))

    def _settling(self, _: JobKey) -> bool:
        return False

    async def _try_create(self, *_: object) -> None:
        self.asked += 1
        if self.answer is not None:
            raise self.answer


@pytest.fixture
async def tenant(api: Api, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Tenant]:
    found = Tenant(api, control_plane, namespace)
    yield found
    await found.close()


@pytest.fixture
def server(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tenant, monkeypatch)


async def submit(tenant: Tenant, **workers: Any) -> None:
    await tenant.submit(store=OWN_STORE, workers={"replicas": 2} | workers)
    await tenant.look()


async def edit(tenant: Tenant, **spec: Any) -> None:
    await tenant.api.merge("RolloutJob", *tenant.key, {"spec": spec})
    await tenant.look()


async def uids(tenant: Tenant) -> set[str]:
    """uids of the workers' pods that are not being deleted."""
    await tenant.look()
    found = [record.pod for record in tenant.cache.pods(tenant.key)]
    return {pod.uid for pod in found if pod.index is not None and not pod.leaving}


async def test_a_recheck_without_an_answer_changes_nothing(tenant: Tenant, server: Server) -> None:
    await submit(tenant)
    await tenant.run_pods()
    before = await uids(tenant)
    server.answer = INVALID
    await edit(tenant, workers=TEMPLATE)
    told = (await tenant.conditions())["TemplateInvalid"]
    assert told[0] == "True"
    asked, server.answer = server.asked, BUSY
    assert await uids(tenant) == before
    assert server.asked > asked
    assert (await tenant.conditions())["TemplateInvalid"] == told


async def test_without_an_answer_running_workers_stay_and_none_is_created(tenant: Tenant, server: Server) -> None:
    await submit(tenant)
    await tenant.run_pods()
    before = await uids(tenant)
    server.answer = BUSY
    await edit(tenant, workers=TEMPLATE | {"replicas": 3})
    assert await uids(tenant) == before
    status, reason, message = (await tenant.conditions())["TemplateInvalid"]
    assert (status, reason) == ("Unknown", "TemplatesNotProven")
    assert BUSY.message in message
    server.answer = None
    await tenant.look()
    await tenant.run_pods()
    assert "worker-2" in await tenant.pods()
    assert await uids(tenant) & before != before


async def test_a_job_and_its_deadline_wait_for_an_answer(tenant: Tenant, server: Server) -> None:
    server.answer = BUSY
    await submit(tenant, **TEMPLATE)
    assert await tenant.pods() == set()
    assert "startTime" not in (await tenant.api.get("RolloutJob", *tenant.key))["status"]
    server.answer = None
    await tenant.look(2)
    assert await tenant.pods() == {"driver", "worker-0", "worker-1"}


@pytest.mark.parametrize("hindrance", [WEBHOOK, DENIED])
async def test_a_refusal_by_others_replaces_no_worker_and_is_retried(
    tenant: Tenant, server: Server, hindrance: KubeApiError
) -> None:
    await submit(tenant)
    await tenant.run_pods()
    before = await uids(tenant)
    server.answer = hindrance
    await edit(tenant, workers=TEMPLATE)
    assert await uids(tenant) == before
    status, reason, message = (await tenant.conditions())["TemplateInvalid"]
    assert (status, reason) == ("Unknown", "TemplatesNotProven")
    assert hindrance.message in message
    server.answer = INVALID
    assert await uids(tenant) == before
    assert (await tenant.conditions())["TemplateInvalid"][0] == "True"


@pytest.mark.parametrize("answer", [QUOTA, REAL_ONLY])
async def test_an_answer_that_judges_no_template_does_not_block_replacement(
    tenant: Tenant, server: Server, answer: KubeApiError
) -> None:
    await submit(tenant)
    await tenant.run_pods()
    before = await uids(tenant)
    server.answer = answer
    await edit(tenant, workers=TEMPLATE)
    assert await uids(tenant) & before != before
    assert (await tenant.conditions())["TemplateInvalid"][0] == "False"


async def test_other_changed_parts_of_a_pod_are_tried_too(tenant: Tenant, server: Server) -> None:
    await submit(tenant, **TEMPLATE)
    await tenant.look()
    asked = server.asked
    await edit(tenant, workers={"replicas": 1})
    assert server.asked == asked
    server.answer = INVALID
    await edit(tenant, workers={"resources": {"requests": {"cpu": "1"}}})
    assert server.asked == asked + 1
    assert (await tenant.conditions())["TemplateInvalid"][0] == "True"


async def test_a_revived_job_creates_no_pod_of_a_refused_template(tenant: Tenant, server: Server) -> None:
    await tenant.submit(activeDeadlineSeconds=1, store=OWN_STORE, workers={"replicas": 1})
    await tenant.look()
    await asyncio.sleep(1.1)
    await tenant.look(2)
    assert (await tenant.conditions())["Failed"][:2] == ("True", "DeadlineExceeded")
    server.answer = INVALID
    await edit(tenant, workers=TEMPLATE)
    assert server.asked == 0
    await tenant.api.merge("RolloutJob", *tenant.key, {"metadata": {"annotations": {"openseer.dev/revive": "1"}}})
    await tenant.look()
    status = (await tenant.api.get("RolloutJob", *tenant.key))["status"]
    assert (status["revivedBy"], status["reason"]) == ("1", "TemplateInvalid")
    assert "startTime" not in status
    assert await tenant.pods() == set()
    server.answer = None
    await tenant.look()
    assert "startTime" in (await tenant.api.get("RolloutJob", *tenant.key))["status"]
