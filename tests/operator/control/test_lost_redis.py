"""The operator's handling of a managed Redis on a lost node, against a real API server. There are no nodes, so no pod
is ever reported as ended."""

from collections.abc import AsyncIterator

import pytest

from openseer_operator.kube.api import Api
from tests.operator.control_plane import ControlPlane
from tests.operator.tenant import Tenant
from tests.operator.volumes import make_claim

pytestmark = [pytest.mark.cluster]
REDIS, CLAIM = "job-redis-0", "data-job-redis-0"


@pytest.fixture
async def tenant(
    api: Api, control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tenant]:
    # A deleted pod has 30 s to end; here they count as over.
    monkeypatch.setattr("openseer_core.plan.store.FORCE_SECONDS", -60.0)
    found = Tenant(api, control_plane, namespace)
    yield found
    await found.close()


async def lose_redis(tenant: Tenant, driver: str | None) -> str:
    """Deletes a job's Redis pod whose node does not answer; returns the pod's uid."""
    await tenant.submit(workers={"replicas": 1})
    await tenant.look()
    await make_claim(tenant.api, tenant.key[0], driver, ["ReadWriteOnce"], claim=CLAIM)
    await tenant.place_store("n-lost")
    await tenant.look(2)
    uid = (await tenant.find("Pod", REDIS))["metadata"]["uid"]
    await tenant.api.delete("Pod", tenant.key[0], REDIS, uid)
    return uid


async def test_a_redis_with_a_safe_volume_leaves_a_lost_node(tenant: Tenant) -> None:
    await lose_redis(tenant, "disk")
    await tenant.look()
    assert await tenant.find("Pod", REDIS) == {}
    (told,) = await tenant.events("StoreMoved")
    assert "node n-lost of job-redis-0 does not answer" in told
    await tenant.place_store("n-other")
    await tenant.look(2)
    assert (await tenant.conditions())["Available"][1] != "StoreNodeLost"
    assert await tenant.pods() == {"driver", "worker-0"}


async def test_a_redis_with_an_unsafe_volume_stays_with_the_remedy_reported(tenant: Tenant) -> None:
    uid = await lose_redis(tenant, None)
    await tenant.look(3)
    assert (await tenant.find("Pod", REDIS))["metadata"]["uid"] == uid
    found = await tenant.conditions()
    status, reason, message = found["Available"]
    assert (status, reason) == ("False", "StoreNodeLost")
    assert "is not attached to nodes by a CSI driver" in message
    assert "kubectl delete node n-lost" in message
    assert found["Ready"][:2] == ("False", "StoreNodeLost")
    assert found["Progressing"][:2] == ("True", "WaitingForStore")
    assert await tenant.events("StoreNodeLost") == [message]
    (event,) = await tenant.event_objects("StoreNodeLost")
    assert event["count"] == 1


async def test_an_ephemeral_redis_stays_on_its_lost_node(tenant: Tenant) -> None:
    await tenant.submit(workers={"replicas": 1}, store={"persistence": {"medium": "ephemeral", "size": "1Gi"}})
    await tenant.look()
    await tenant.place_store("n-lost")
    await tenant.look()
    uid = (await tenant.find("Pod", REDIS))["metadata"]["uid"]
    await tenant.api.delete("Pod", tenant.key[0], REDIS, uid)
    await tenant.look(2)
    assert await tenant.find("Pod", REDIS) != {}
    assert "medium: ephemeral" in (await tenant.conditions())["Available"][2]
    # Data that are deleted with the job need not be kept.
    await tenant.api.merge("RolloutJob", *tenant.key, {"metadata": {"finalizers": ["example.com/keep"]}})
    await tenant.api.delete("RolloutJob", *tenant.key)
    await tenant.look(2)
    assert await tenant.find("Pod", REDIS) == {}
