"""The chart's rights suffice for all actions of the operator, and allow reading no Secret of the cluster."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.plan.actions import (
    Announce,
    ApplyShared,
    CreatePod,
    DeletePod,
    DeleteStore,
    EndSidecars,
    InspectStore,
    ScaleStore,
    Stamp,
)
from openseer_operator.control.apply import Applier, ApplyTarget
from openseer_operator.control.metrics import OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.kube.api import Api, KubeApiError
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.objects.names import TEMPLATE_ANNOTATION
from openseer_operator.objects.shared import shared_objects
from openseer_operator.settings import OperatorSettings
from tests.charts.rendering import HELM, template
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ACCESS
from tests.operator.tenant import WRITTEN
from tests.operator.whole_process import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh"),
]
SETTINGS = OperatorSettings("system", "worker:1", "operator:1", identity="test", stores=ACCESS)
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/system/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
CHANGED = set(WRITTEN) - {"Pod", "Secret", "StatefulSet"}


@pytest.fixture
async def chosen(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A client with the rights that the chart gives the operator."""
    control_plane.make_namespace("system")
    for entry in yaml.safe_load_all(template().stdout):
        if entry and entry["kind"] in PATHS:
            control_plane.request(PATHS[entry["kind"]], json.dumps(entry).encode())
    token = control_plane.request(f"{PATHS['ServiceAccount']}/rel-openseer/token", b'{"spec": {}}')
    path = control_plane.kubeconfig_of(json.loads(token)["status"]["token"], tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(path))
    client = await Api.connect()
    await until(lambda: _is_allowed(client))  # the server applies new roles a moment later
    client.calls.clear()
    yield client
    await client.close()


async def _is_allowed(client: Api) -> bool:
    return [page async for page in client.pages("StatefulSet", ())] != []


async def test_the_charts_rights_are_enough_for_a_job_and_open_no_secret(api: Api, chosen: Api, namespace: str) -> None:
    body: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "job", "namespace": namespace},
        "spec": {
            "model": {"path": "m"},
            "prompts": {"path": "p.jsonl"},
            **{
                part: {"template": {"spec": {"nodeSelector": {"pool": "a"}}}} for part in ("workers", "driver", "store")
            },
        },
    }
    await api.create("RolloutJob", namespace, body)
    cache, key = Cache(), (namespace, "job")
    stores = StorePoller(chosen, lambda key: None, access=ACCESS)
    census = Census(chosen, cache, (), lambda key: None)
    observer, events = Observer(cache, census, stores, SETTINGS), Events(chosen, SETTINGS)
    applier = Applier(chosen, cache, census, stores, events, SETTINGS)
    reconciler = Reconciler(chosen, cache, census, stores, observer, applier, OperatorState(), SETTINGS)
    await census.fill()
    for _ in range(4):
        await reconciler.reconcile(key)
    record = cache.job(key)
    assert record is not None
    assert record.job is not None
    secret = observer.store_secret(record, record.job)
    target = ApplyTarget(record, record.job, "worker:1", secret, time.time())
    await applier.apply(target, [CreatePod(7, 0, 0), Announce(False, "Tested", "told")])
    (made,) = [pod for pod in cache.pods_of(record) if pod.index == 7]
    await applier.apply(target, [Stamp(made.name, made.uid, True), EndSidecars(made.name, made.uid)])
    await applier.apply(target, [DeletePod(made.name, made.uid, "test"), InspectStore()])
    await _change_shared(api, target, applier)
    await applier.apply(target, [ScaleStore(0), DeleteStore()])
    assert [call for call in chosen.calls if call[2] == 403] == []
    assert chosen.calls["POST", "Secret", 201] == 1
    for kind in CHANGED:
        assert chosen.calls["GET", kind, 200], f"{kind}: not read before it was changed"
        assert chosen.calls["PATCH", kind, 200], f"{kind}: not changed"

    assert record.status["storeSecret"] == secret
    for name in (secret, "anything"):
        with pytest.raises(KubeApiError, match=f'403 secrets "{name}" is forbidden'):
            await chosen.get("Secret", namespace, name)
    with pytest.raises(KubeApiError, match="403 secrets is forbidden"):
        [page async for page in chosen.pages("Secret", (namespace,), metadata_only=True)]


async def _change_shared(api: Api, target: ApplyTarget, applier: Applier) -> None:
    """Changes all shared objects as an administrator, and lets the operator restore them."""
    objects = shared_objects(target.job, target.record.uid, SETTINGS, 1, secret=target.secret)
    note = {"metadata": {"annotations": {TEMPLATE_ANNOTATION: "another"}}}
    for body in objects.values():
        await api.merge(body["kind"], target.namespace, body["metadata"]["name"], note)
    await applier.apply(target, [ApplyShared(key) for key in objects])
