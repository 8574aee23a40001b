"""The gateway finds jobs by name, and their stores by the names that the operator gives."""

import asyncio
from pathlib import Path

import pytest

from openseer_api.cluster.client import Kube
from openseer_api.cluster.jobs import JobsUnavailable, KubeJobs
from openseer_core.errors import StoreForbiddenError
from openseer_core.manifest.store_url import derived_password, derived_secret_name
from tests.api.cluster.tenants import Reader, make, make_job, set_status
from tests.operator.control_plane import ControlPlane
from tests.operator.stores import ACCESS

pytestmark = [pytest.mark.cluster]


async def test_a_job_is_found_with_its_defaults_also_right_after_creation(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    jobs = KubeJobs(kube)
    assert await jobs.find(namespace, "late") is None
    make_job(plane, namespace, "late", groupSize=3)
    await asyncio.sleep(1.1)
    found = await jobs.find(namespace, "late")
    assert found is not None
    assert (found.key, found.job.spec.group_size, found.job.spec.rollout.policy) == (
        (namespace, "late"),
        3,
        "context-aware",
    )


async def test_only_serving_jobs_under_an_operator_are_found(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    make_job(plane, namespace, "batch", mode="batch", prompts={"path": "p.jsonl"})
    make_job(plane, namespace, "serve")
    assert await KubeJobs(kube).find(namespace, "batch") is None
    assert await KubeJobs(kube, ["elsewhere"]).find(namespace, "serve") is None
    assert await KubeJobs(kube, [namespace]).find(namespace, "serve") is not None
    assert [served.key async for served in KubeJobs(kube, [namespace]).all()] == [(namespace, "serve")]
    found = await KubeJobs(kube).find(namespace, "serve")
    assert found is not None
    assert found.job.recommended_workers is None
    assert (namespace, "serve") in [served.key async for served in KubeJobs(kube).all()]


async def test_batch_jobs_are_found_on_request_until_they_end(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    for name in ("runs", "ended"):
        make_job(plane, namespace, name, mode="batch", prompts={"path": "p.jsonl"})
    make_job(plane, namespace, "serve")
    set_status(plane, namespace, "ended", completionTime="2026-11-29T12:00:00Z")
    jobs = KubeJobs(kube, [namespace], mode="batch")
    assert [found.key async for found in jobs.all()] == [(namespace, "runs")]
    assert await jobs.find(namespace, "ended") is None
    assert await jobs.find(namespace, "serve") is None


async def test_a_managed_store_is_found_without_reading_a_secret(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    make_job(plane, namespace, "job")
    found = await KubeJobs(kube, access=ACCESS).find(namespace, "job")
    assert found is not None
    with pytest.raises(JobsUnavailable, match="does not exist yet: the operator has not created it"):
        await KubeJobs(kube, access=ACCESS).store_url(found)
    secret = derived_secret_name(found.job, found.uid, ACCESS.keys()[0])
    set_status(plane, namespace, "job", image="worker:1", storeSecret=secret)
    begun = await KubeJobs(kube, access=ACCESS).find(namespace, "job")
    assert begun is not None
    password = derived_password(found.job, found.uid, secret, ACCESS.keys())
    assert await KubeJobs(kube, access=ACCESS).store_url(begun) == (
        f"redis://:{password}@job-redis.{namespace}.svc:6379/0"
    )


async def test_a_random_password_is_read_from_the_jobs_old_secret(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    jobs, url = KubeJobs(kube, access=ACCESS), "redis://:p@job-redis.x.svc:6379/0"
    make_job(plane, namespace, "job")
    set_status(plane, namespace, "job", image="worker:1")
    found = await jobs.find(namespace, "job")
    assert found is not None
    with pytest.raises(JobsUnavailable, match="does not exist yet: no Secret job-redis"):
        await jobs.store_url(found)
    secret = {"metadata": {"name": "job-redis"}, "stringData": {"url": url}}
    make(plane, f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert await jobs.store_url(found) == url


async def test_an_unreadable_secret_is_reported_with_the_remedy(
    plane: ControlPlane, namespace: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(plane, namespace, "job", store={"secretRef": {"name": "mine", "key": "url"}})
    reader = Reader(plane, namespace, folder)
    monkeypatch.setenv("KUBECONFIG", str(reader.kubeconfig))
    kube = await Kube.connect()
    try:
        jobs = KubeJobs(kube, access=ACCESS)
        found = await jobs.find(namespace, "job")
        assert found is not None
        with pytest.raises(StoreForbiddenError, match=f"kubectl create role openseer-mine -n {namespace} --verb=get"):
            await jobs.store_url(found)
    finally:
        await kube.close()


async def test_a_store_of_the_users_own_is_found_by_its_secret_or_its_url(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    jobs = KubeJobs(kube)
    make_job(plane, namespace, "plain", store={"url": "redis://mine:6379/1"})
    make_job(plane, namespace, "secret", store={"secretRef": {"name": "mine", "key": "redis"}})
    make(plane, f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "mine"}, "stringData": {"other": ""}})
    plain, secret = await jobs.find(namespace, "plain"), await jobs.find(namespace, "secret")
    assert plain is not None
    assert secret is not None
    assert await jobs.store_url(plain) == "redis://mine:6379/1"
    with pytest.raises(JobsUnavailable, match="Secret mine: key redis: missing"):
        await jobs.store_url(secret)
