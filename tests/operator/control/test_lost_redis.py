"""The node of a managed Redis does not answer: what the operator does then, against a real API server. There is no node
at all, so nothing ever says that a pod has ended."""

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
    # A pod that is asked to go has 30 s; here they count as long over.
    monkeypatch.setattr("openseer_core.plan.store.FORCE_SECONDS", -60.0)
    found = Tenant(api, control_plane, namespace)
    yield found
    await found.close()


async def lose_redis(tenant: Tenant, driver: str | None) -> str:
    """A job whose Redis was asked to go and whose node says nothing; the uid of the pod."""
    await tenant.submit(workers={"replicas": 1})
    await tenant.look()
    await make_claim(tenant.api, tenant.key[0], driver, ["ReadWriteOnce"], claim=CLAIM)
    await tenant.place_store("n-lost")
    await tenant.look(2)
    uid = (await tenant.find("Pod", REDIS))["metadata"]["uid"]
    await tenant.api.delete("Pod", tenant.key[0], REDIS, uid)
    return uid


async def test_a_redis_whose_volume_is_safe_leaves_a_lost_node_and_the_job_goes_on(tenant: Tenant) -> None:
    await lose_redis(tenant, "disk")
    await tenant.look()
    assert await tenant.find("Pod", REDIS) == {}
    (told,) = await tenant.events("StoreMoved")
    assert "node n-lost of job-redis-0 does not answer" in told
    await tenant.place_store("n-other")
    await tenant.look(2)
    assert (await tenant.conditions())["Available"][1] != "StoreNodeLost"
    assert await tenant.pods() == {"driver", "worker-0"}


async def test_a_redis_whose_volume_is_not_safe_stays_and_a_person_is_told_what_to_do(tenant: Tenant) -> None:
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


async def test_the_node_of_an_ephemeral_redis_holds_its_only_data_so_it_stays(tenant: Tenant) -> None:
    await tenant.submit(workers={"replicas": 1}, store={"persistence": {"medium": "ephemeral", "size": "1Gi"}})
    await tenant.look()
    await tenant.place_store("n-lost")
    await tenant.look()
    uid = (await tenant.find("Pod", REDIS))["metadata"]["uid"]
    await tenant.api.delete("Pod", tenant.key[0], REDIS, uid)
    await tenant.look(2)
    assert await tenant.find("Pod", REDIS) != {}
    assert "medium: ephemeral" in (await tenant.conditions())["Available"][2]
    # What goes with the job need not be kept.
    await tenant.api.merge("RolloutJob", *tenant.key, {"metadata": {"finalizers": ["example.com/keep"]}})
    await tenant.api.delete("RolloutJob", *tenant.key)
    await tenant.look(2)
    assert await tenant.find("Pod", REDIS) == {}
