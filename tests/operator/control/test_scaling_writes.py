"""An autoscaled job keeps its window in memory at each step, and writes it no more often than progress."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from openseer_core.plan.observation import StoreView
from openseer_core.queue.messages import BatchProgress
from openseer_operator.control import reconcile
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.objects.reading import JobKey
from tests.operator.control_plane import ControlPlane
from tests.operator.tenant import Tenant

pytestmark = [pytest.mark.cluster]
WINDOW_SECONDS = 2


@pytest.fixture
async def tenant(api: Api, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Tenant]:
    found = Tenant(api, control_plane, namespace)
    yield found
    await found.close()


class Backlog:
    """A played view of the job's store with no or one waiting request."""

    def __init__(self, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = 1
        monkeypatch.setattr(tenant.stores, "view", self._view)

    def _view(self, _: JobKey) -> StoreView:
        return StoreView(BatchProgress(groups=1, requests=9, ok=9 - self.waiting, sealed=True))


async def start(tenant: Tenant, seconds: int = WINDOW_SECONDS) -> None:
    """Starts a serving job with windows of `seconds`; returns once its status is written."""
    autoscale = {"idleSeconds": seconds, "scaleDownSeconds": seconds}
    await tenant.submit(
        mode="serve",
        prompts=None,
        store={"url": "redis://127.0.0.1:1/0"},
        workers={"replicas": 2, "max": 4, "autoscale": autoscale},
    )
    await tenant.look(5)


def writes(tenant: Tenant) -> int:
    return tenant.api.calls["PATCH", "RolloutJob", 200]


async def test_a_wavering_backlog_is_not_written_at_each_step(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(tenant, monkeypatch)
    monkeypatch.setattr(reconcile, "PROGRESS_SECONDS", 600.0)
    await start(tenant, 600)
    before = writes(tenant)
    for number in range(20):
        backlog.waiting = number % 2
        await tenant.look()
    assert writes(tenant) <= before + 1


async def test_the_start_of_idleness_is_remembered_without_a_write(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    backlog = Backlog(tenant, monkeypatch)
    await start(tenant)
    backlog.waiting = 0
    await tenant.look()
    assert (await tenant.pods()) == {"worker-0", "worker-1"}
    await asyncio.sleep(WINDOW_SECONDS + 0.1)
    await tenant.look()
    assert (await tenant.pods()) == set()


async def test_a_failed_write_does_not_restart_the_window(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(tenant, monkeypatch)
    backlog.waiting = 2
    await start(tenant)
    backlog.waiting = 1
    await tenant.look()
    assert (await tenant.pods()) == {"worker-0", "worker-1"}
    await asyncio.sleep(WINDOW_SECONDS + 0.1)

    async def fail(*_: object) -> None:
        raise KubeApiError("no leader", 500)

    with monkeypatch.context() as failing:
        failing.setattr(tenant.api, "apply", fail)
        with pytest.raises(KubeApiError):
            await tenant.look()
    await tenant.look()
    assert len(await tenant.pods()) == 1
