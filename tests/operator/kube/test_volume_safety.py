"""Whether the volume of a lost Redis is safe, from the objects of a real API server."""

import uuid
from typing import Any

import pytest

from openseer_core.plan.observation import Pod
from openseer_operator.kube.api import Api
from openseer_operator.kube.volume_safety import volume_risk
from tests.operator.volumes import make_claim

pytestmark = [pytest.mark.cluster]


async def lose_redis(api: Api, namespace: str, node: str = "gone", **mounts: dict[str, Any]) -> Pod:
    """Creates a Redis pod with these volumes at its data folder and in folders below."""
    where = [{"name": name, "mountPath": "/data" if not at else f"/data/{name}"} for at, name in enumerate(mounts)]
    container = {"name": "redis", "image": "i", "volumeMounts": where}
    spec = {"containers": [container], "volumes": [{"name": name, **source} for name, source in mounts.items()]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"r-{uuid.uuid4().hex[:8]}"}, "spec": spec}
    meta = (await api.create("Pod", namespace, pod))["metadata"]
    return Pod(meta["name"], meta["uid"], None, node=node)


def claimed(claim: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": claim}}


async def test_a_volume_attached_to_one_node_at_a_time_is_safe(api: Api, namespace: str) -> None:
    redis = await lose_redis(api, namespace, data=claimed(await make_claim(api, namespace, "disk", ["ReadWriteOnce"])))
    assert await volume_risk(api, namespace, redis) == ""


async def test_a_deleted_claim_is_a_risk(api: Api, namespace: str) -> None:
    redis = await lose_redis(api, namespace, data=claimed("no-claim"))
    assert "its claim no-claim is gone" in await volume_risk(api, namespace, redis)


async def test_every_volume_in_the_data_folder_is_judged(api: Api, namespace: str) -> None:
    safe = claimed(await make_claim(api, namespace, "disk", ["ReadWriteOnce"]))
    shared = claimed(await make_claim(api, namespace, "disk", ["ReadWriteMany"]))
    redis = await lose_redis(api, namespace, data=safe, appendonlydir=shared)
    assert "allows ReadWriteMany" in await volume_risk(api, namespace, redis)
    redis = await lose_redis(api, namespace, data=safe, appendonlydir={"emptyDir": {}})
    assert await volume_risk(api, namespace, redis) == "its volume appendonlydir comes from no claim"


async def test_a_missing_pod_has_no_risk(api: Api, namespace: str) -> None:
    redis = await lose_redis(api, namespace, data={"emptyDir": {}})
    assert await volume_risk(api, namespace, redis) != ""
    assert await volume_risk(api, namespace, Pod(redis.name, "another", None, node="gone")) == ""
    assert await volume_risk(api, namespace, Pod("no-pod", "u", None, node="gone")) == ""


@pytest.mark.parametrize(
    ("driver", "modes", "attached", "why"),
    [
        (None, ["ReadWriteOnce"], True, "is not attached to nodes by a CSI driver"),
        ("disk", ["ReadWriteOnce", "ReadWriteMany"], True, "allows ReadWriteMany"),
        ("files", ["ReadWriteOnce"], False, "is not attached to nodes"),
    ],
)
async def test_a_volume_writable_by_two_nodes_is_a_risk_with_its_reason(
    api: Api, namespace: str, driver: str | None, modes: list[str], attached: bool, why: str
) -> None:
    claim = await make_claim(api, namespace, driver, modes, attached=attached)
    risk = await volume_risk(api, namespace, await lose_redis(api, namespace, data=claimed(claim)))
    assert f"volume {claim} " in risk
    assert why in risk


async def test_a_node_that_answers_again_is_a_risk(api: Api, namespace: str) -> None:
    claim, node = await make_claim(api, namespace, "disk", ["ReadWriteOnce"]), f"n-{uuid.uuid4().hex[:8]}"
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await api.create("Node", None, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": ready})
    redis = await lose_redis(api, namespace, node, data=claimed(claim))
    assert "answers Kubernetes again" in await volume_risk(api, namespace, redis)
