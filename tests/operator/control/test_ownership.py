"""Names of a job's objects may be occupied: foreign objects are neither changed nor deleted, and the job names them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from openseer_core.plan.actions import Announce
from openseer_operator.control import observe
from openseer_operator.kube.api import RESOURCES, Api, KubeConflictError
from openseer_operator.kube.events import Events
from openseer_operator.kube.owned_objects import NotMadeError, OwnedObjects
from openseer_operator.objects.reading import JsonObject
from openseer_operator.settings import FIELD_MANAGER, OperatorSettings
from tests.operator.control_plane import ControlPlane
from tests.operator.tenant import WRITTEN, Tenant, foreign, snapshot

pytestmark = [pytest.mark.cluster]
NAMES = (
    ("ServiceAccount", "default"),
    ("ConfigMap", "default-job"),
    ("Service", "default-workers"),
    ("Service", "default-redis"),
    ("PodDisruptionBudget", "default-workers"),
    ("NetworkPolicy", "default"),
    ("PersistentVolumeClaim", "default-output"),
    ("StatefulSet", "default-redis"),
    ("Pod", "default-driver"),
    ("Pod", "default-worker-0"),
)
"""All that is made for a job of the name `default` with one worker, but for the Secret of its Redis, whose name nobody
can take before."""
READ = {"PersistentVolume", "CSIDriver"}
"""Kinds that are never written."""
CLAIM = ("PersistentVolumeClaim", "data-default-redis-0")
"""What the StatefulSet's controller would take for its own."""


@pytest.fixture
async def tenant(api: Api, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Tenant]:
    found = Tenant(api, control_plane, namespace, "default")
    yield found
    await found.close()


async def test_the_list_of_a_jobs_objects_and_kinds_is_complete(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    made = set(await snapshot(tenant.api, tenant.key[0])) - {("Pod", "default-redis-0")}
    assert made == {*NAMES, ("Secret", await tenant.secret_name())}
    assert {kind for kind, _ in made} == set(WRITTEN)
    # The job's own status and finalizers, by its uid; events by job and text; the operator's Lease; a node's condition.
    others = {"RolloutJob", "Event", "Lease", "Node"}
    assert RESOURCES.keys() - set(WRITTEN) - READ == others | {"Deployment"}  # of a serving job's routed experts


async def test_a_foreign_deployment_is_not_changed_and_is_named(tenant: Tenant) -> None:
    before = await tenant.api.create("Deployment", tenant.key[0], foreign("Deployment", "default-rows"))
    capture = {"capture": {"pvc": {"claimName": "fast", "path": "rows"}}}
    await tenant.submit(mode="serve", prompts=None, routing=capture)
    await tenant.look(2)
    assert "Deployment default-rows" in (await tenant.conditions())["NameTaken"][2]
    assert await tenant.find("Deployment", "default-rows") == before


@pytest.mark.parametrize(("kind", "name"), [*NAMES, CLAIM])
async def test_foreign_objects_are_not_changed_and_are_named(tenant: Tenant, kind: str, name: str) -> None:
    before = await tenant.api.create(kind, tenant.key[0], foreign(kind, name))
    await tenant.start(workers={"replicas": 1})
    conditions = await tenant.conditions()
    assert conditions["NameTaken"][:2] == ("True", "NameTaken")
    assert conditions["NameTaken"][2].startswith(f"{kind} {name}: ")
    assert conditions["PodsCreated"][0] == "False"
    assert [text for text in await tenant.events("NameTaken") if text.startswith(f"{kind} {name}: ")]
    assert (await tenant.pods() <= {"driver", "worker-0"}) if kind == "Pod" else not await tenant.pods()

    await tenant.api.merge("RolloutJob", *tenant.key, {"spec": {"suspend": True}})
    await tenant.look(3)
    assert await tenant.find(kind, name) == before


async def test_a_freed_name_is_used_and_the_condition_ends(tenant: Tenant) -> None:
    await tenant.api.create("ServiceAccount", tenant.key[0], foreign("ServiceAccount", "default"))
    await tenant.start(workers={"replicas": 1})
    assert (await tenant.conditions())["NameTaken"][0] == "True"
    await tenant.api.delete("ServiceAccount", tenant.key[0], "default")
    await tenant.look(2)
    await tenant.place_store()
    await tenant.look(2)
    assert (await tenant.conditions())["NameTaken"] == ("False", "NamesFree", "")
    assert await tenant.pods() == {"driver", "worker-0"}


async def test_the_operator_waits_for_the_deletion_of_an_earlier_jobs_objects(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    await tenant.api.delete("RolloutJob", *tenant.key)  # and no garbage collector runs
    before = await snapshot(tenant.api, tenant.key[0])
    await tenant.submit(workers={"replicas": 1})
    await tenant.census.fill()
    await tenant.look(2)
    assert "to an earlier job of this name" in (await tenant.conditions())["NameTaken"][2]
    after = await snapshot(tenant.api, tenant.key[0])
    assert {key: after.get(key) for key in before} == before
    assert after.keys() - before.keys() == {("Secret", await tenant.secret_name())}, (
        "an object other than the job's own Secret was created"
    )


async def test_an_object_without_its_owner_reference_is_not_changed(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    await tenant.api.merge(
        "PersistentVolumeClaim", tenant.key[0], "default-output", {"metadata": {"ownerReferences": None}}
    )
    kept = await tenant.find("PersistentVolumeClaim", "default-output")
    await tenant.census.fill()
    await tenant.look(2)
    assert "PersistentVolumeClaim default-output" in (await tenant.conditions())["NameTaken"][2]
    assert await tenant.find("PersistentVolumeClaim", "default-output") == kept


async def test_a_foreign_stateful_set_of_the_name_is_not_deleted(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    await tenant.api.delete("StatefulSet", tenant.key[0], "default-redis")
    after = await tenant.api.create("StatefulSet", tenant.key[0], foreign("StatefulSet", "default-redis"))
    job = tenant.cache.job(tenant.key)
    assert job is not None
    with pytest.raises(NotMadeError):
        await OwnedObjects(tenant.api, tenant.census).delete(job, "StatefulSet", "default-redis")
    assert await tenant.find("StatefulSet", "default-redis") == after


async def test_a_field_removed_from_a_manifest_is_removed_from_the_object(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    job = tenant.cache.job(tenant.key)
    assert job is not None
    found = await tenant.find("Service", "default-workers")
    spec = {name: found["spec"][name] for name in ("clusterIP", "selector", "ports")}
    meta = {name: found["metadata"][name] for name in ("name", "namespace", "labels", "ownerReferences")}
    body: JsonObject = {"apiVersion": "v1", "kind": "Service", "metadata": {**meta, "annotations": {}}, "spec": spec}
    objects = OwnedObjects(tenant.api, tenant.census)
    for note in ("one", "two"):
        body["metadata"]["annotations"] = {"openseer.dev/template": note}
        await objects.put(job, "Service", body)
        changed = await tenant.find("Service", "default-workers")
        assert changed["spec"].get("publishNotReadyAddresses", False) is False
        assert changed["metadata"]["uid"] == found["metadata"]["uid"]
    ours = [each for each in changed["metadata"]["managedFields"] if each["manager"] == FIELD_MANAGER]
    assert [each["operation"] for each in ours] == ["Apply"]


async def test_a_deleted_secret_is_created_again_while_a_pod_starts(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.start(workers={"replicas": 1})
    name = await tenant.secret_name()
    before = await tenant.find("Secret", name)
    await tenant.api.delete("Secret", tenant.key[0], name)
    await tenant.look()
    assert not await tenant.find("Secret", name), "the Secret was created again although it was known a moment before"
    monkeypatch.setattr(observe, "SECRET_SECONDS", 0.0)
    reads = tenant.api.calls["GET", "Secret", 200] + tenant.api.calls["GET", "Secret", 404]
    await tenant.look()
    assert tenant.api.calls["GET", "Secret", 200] + tenant.api.calls["GET", "Secret", 404] == reads
    assert (await tenant.find("Secret", name))["data"] == before["data"]


async def test_a_users_own_secret_causes_no_conflict(tenant: Tenant) -> None:
    before = await tenant.api.create("Secret", tenant.key[0], foreign("Secret", "default-redis"))
    await tenant.start(workers={"replicas": 1})
    assert (await tenant.conditions())["NameTaken"][0] == "False"
    assert await tenant.pods() == {"driver", "worker-0"}
    assert await tenant.find("Secret", "default-redis") == before


async def test_a_conflict_of_a_quota_is_not_taken_for_an_existing_secret(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(kind: str, namespace: str | None, body: JsonObject) -> JsonObject:
        raise KubeConflictError("POST: 409 the quota has been modified", 409)

    await tenant.start(workers={"replicas": 1})
    job = tenant.cache.job(tenant.key)
    assert job is not None
    objects = OwnedObjects(tenant.api, tenant.census)
    await objects.create_unread(job, "Secret", foreign("Secret", await tenant.secret_name()))
    monkeypatch.setattr(tenant.api, "create", create)
    with pytest.raises(KubeConflictError):
        await objects.create_unread(job, "Secret", foreign("Secret", "new"))


async def test_the_secret_of_a_job_with_running_pods_is_not_requested(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tenant.start(workers={"replicas": 1})
    monkeypatch.setattr(observe, "SECRET_SECONDS", 0.0)
    await tenant.run_pods()
    before = tenant.api.calls["POST", "Secret", 409]
    await tenant.look()
    assert tenant.api.calls["POST", "Secret", 409] == before


async def test_a_foreign_event_of_the_name_is_not_counted(tenant: Tenant) -> None:
    await tenant.start(workers={"replicas": 1})
    job = tenant.cache.job(tenant.key)
    assert job is not None
    events = Events(tenant.api, OperatorSettings("default", "w", "s"))
    await events.announce(job, Announce(False, "Told", "once"))
    (name,) = [entry["metadata"]["name"] for entry in await tenant.event_objects("Told")]
    await tenant.api.delete("Event", tenant.key[0], name)
    other = {"kind": "Node", "namespace": tenant.key[0], "name": "n", "uid": "n"}
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "involvedObject": other,
        "reason": "Told",
    }
    before = await tenant.api.create("Event", tenant.key[0], body)
    await events.announce(job, Announce(False, "Told", "once"))
    assert await tenant.event_objects("Told") == [before]


HOSTILE: tuple[JsonObject, ...] = (
    {},
    {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
    {"containers": [{"name": "worker", "securityContext": {"privileged": True}}]},
    {"hostNetwork": True, "hostPID": True},
    {"serviceAccountName": "platform"},
)
"""Of the templates of a tenant's jobs; the first has but a name that is taken."""


async def test_hostile_tenants_change_no_existing_object(api: Api, control_plane: ControlPlane, namespace: str) -> None:
    restricted, platform = f"{namespace}-restricted", f"{namespace}-platform"
    control_plane.make_namespace(restricted, {"pod-security.kubernetes.io/enforce": "restricted"})
    control_plane.make_namespace(platform)
    for place in (namespace, restricted, platform):
        for kind in WRITTEN:
            await api.create(kind, place, foreign(kind, "platform"))
        await api.create("ServiceAccount", place, foreign("ServiceAccount", "default"))
        await api.create("NetworkPolicy", place, foreign("NetworkPolicy", "deny-all"))
    places = (namespace, restricted, platform, "default", "kube-system")
    before = {place: await snapshot(api, place) for place in places}
    tenants: tuple[tuple[str, str, JsonObject], ...] = (
        (namespace, "default", {}),
        (restricted, "deny-all", {"url": "redis://kubernetes.default.svc:443"}),
    )
    for place, name, store in tenants:
        for number, spec in enumerate(HOSTILE):
            tenant = Tenant(api, control_plane, place, f"{name}-{number}" if number else name)
            await tenant.start(image="openseer-worker:latest", store=store, workers={"template": {"spec": spec}})
            await tenant.close()
    for place in places:
        after = await snapshot(api, place)
        assert {key: after.get(key) for key in before[place]} == before[place]
        made = [after[key] for key in after.keys() - before[place].keys()]
        assert all(
            entry["metadata"]["labels"]["openseer.dev/job"].startswith(("default", "deny-all")) for entry in made
        )
        assert not made or place in (namespace, restricted)
    workers = {name for kind, name in await snapshot(api, restricted) if kind == "Pod" and "worker" in name}
    assert workers == {"deny-all-4-worker-0"}, "Pod Security applies to them; a service account is the namespace's"
