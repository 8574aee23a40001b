"""Jobs are found by their names, and their stores where the operator put them."""

import asyncio

import pytest

from openseer_api.cluster.client import Kube
from openseer_api.cluster.jobs import JobsUnavailable, KubeJobs
from tests.api.cluster.tenants import make, make_job
from tests.operator.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


async def test_a_job_is_found_with_its_defaults_and_one_made_a_moment_later_too(
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


async def test_only_jobs_that_serve_and_are_looked_after_are_found(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    make_job(plane, namespace, "batch", mode="batch", prompts={"path": "p.jsonl"})
    make_job(plane, namespace, "serve")
    assert await KubeJobs(kube).find(namespace, "batch") is None
    assert await KubeJobs(kube, ["elsewhere"]).find(namespace, "serve") is None
    assert await KubeJobs(kube, [namespace]).find(namespace, "serve") is not None
    assert [served.key async for served in KubeJobs(kube, [namespace]).all()] == [(namespace, "serve")]
    assert (namespace, "serve") in [served.key async for served in KubeJobs(kube).all()]


async def test_the_store_is_where_the_operator_put_it(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    jobs, url = KubeJobs(kube), "redis://:p@job-redis.x.svc:6379/0"
    make_job(plane, namespace, "job")
    found = await jobs.find(namespace, "job")
    assert found is not None
    with pytest.raises(JobsUnavailable, match="not there yet: no Secret job-redis"):
        await jobs.store_url(found)
    secret = {"metadata": {"name": "job-redis"}, "stringData": {"url": url}}
    make(plane, f"/api/v1/namespaces/{namespace}/secrets", secret)
    assert await jobs.store_url(found) == url


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
