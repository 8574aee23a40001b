"""Authorization against a real API server: a job's token admits calls of that job only."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from openseer_api.cluster.auth import KubernetesAuth
from openseer_api.cluster.client import Kube
from openseer_api.cluster.jobs import JobsUnavailable, KubeJobs
from openseer_api.http.auth import Access, AuthUnavailable, Forbidden, Unauthenticated
from tests.api.cluster.tenants import Tenant, make_job
from tests.operator.control_plane import ControlPlane

pytestmark = [pytest.mark.cluster]


def signed_anew(token: str, key: Path, **claims: Any) -> str:
    """The token with other claims, signed with the cluster's own key."""
    head, body, _ = token.split(".")
    known = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    text = f"{head}.{_encoded(json.dumps(known | claims).encode())}"
    sign = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    return f"{text}.{_encoded(subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def until_allowed(kube: Kube, tenant: Tenant, access: Access = "read") -> None:
    """Waits until the API server applies a new role."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await KubernetesAuth(kube).check(tenant.token(), tenant.namespace, tenant.job, access)
            except Forbidden:
                await asyncio.sleep(0.1)


# ---- tokens and rights


async def test_a_token_admits_calls_of_its_own_job_only(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    ann, bob = Tenant(plane, namespace, "ann", "get", "update"), Tenant(plane, namespace, "bob", "get", "update")
    auth = KubernetesAuth(kube)
    for tenant, other in ((ann, bob), (bob, ann)):
        await until_allowed(kube, tenant, "write")
        for access in ("read", "write"):
            await auth.check(tenant.token(), namespace, tenant.job, access)
            with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:{tenant.job} may not"):
                await auth.check(tenant.token(), namespace, other.job, access)
            with pytest.raises(Forbidden):
                await auth.check(tenant.token(), "default", tenant.job, access)


async def test_a_read_right_admits_no_write(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    reader = Tenant(plane, namespace, "reader", "get")
    await until_allowed(kube, reader)
    with pytest.raises(Forbidden, match="may not update rolloutjobs/batches"):
        await KubernetesAuth(kube).check(reader.token(), namespace, "reader", "write")


async def test_a_missing_job_and_a_foreign_job_get_the_same_answer(
    plane: ControlPlane, kube: Kube, namespace: str
) -> None:
    make_job(plane, namespace, "there")
    auth, messages = KubernetesAuth(kube), list[str]()
    for job in ("there", "nowhere"):
        with pytest.raises(Forbidden) as refusal:
            await auth.check(Tenant(plane, namespace, f"{job}-visitor", "get").token(), namespace, job, "read")
        messages.append(str(refusal.value).replace(f"{job}-visitor", "visitor").replace(job, "job"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["", "..", "a/b", "Job", "a b", "a\n", "*"])
async def test_an_impossible_job_name_is_refused_even_to_the_administrator(
    kube: Kube, folder: Path, namespace: str, name: str
) -> None:
    admin = (folder / "tokens").read_text().split(",")[0]
    auth = KubernetesAuth(kube)
    await auth.check(admin, namespace, "any", "write")
    for place in ((namespace, name), (name, "any")):
        with pytest.raises(Forbidden):
            await auth.check(admin, *place, "read")


@pytest.mark.parametrize("token", [None, "", "garbage", "a.b.c", "x" * 100_000, "größe"])
async def test_invalid_tokens_are_refused(kube: Kube, token: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await KubernetesAuth(kube).check(token, "default", "job", "read")


async def test_an_expired_token_is_refused(plane: ControlPlane, kube: Kube, namespace: str, folder: Path) -> None:
    ann = Tenant(plane, namespace, "ann", "get")
    await until_allowed(kube, ann)
    key, token = folder / "sa.key", ann.token()
    await KubernetesAuth(kube).check(signed_anew(token, key), namespace, "ann", "read")
    with pytest.raises(Unauthenticated):
        await KubernetesAuth(kube).check(signed_anew(token, key, iat=1, nbf=1, exp=1000), namespace, "ann", "read")


async def test_a_token_for_another_audience_is_refused(plane: ControlPlane, kube: Kube, namespace: str) -> None:
    ann = Tenant(plane, namespace, "ann", "get")
    await until_allowed(kube, ann)
    narrow, plain = KubernetesAuth(kube, ["openseer"]), KubernetesAuth(kube)
    await narrow.check(ann.token(audiences=["openseer"]), namespace, "ann", "read")
    for auth, token in ((narrow, ann.token()), (plain, ann.token(audiences=["vault"]))):
        with pytest.raises(Unauthenticated):
            await auth.check(token, namespace, "ann", "read")


# ---- the API server stops: the last test of this file


async def test_recent_rights_stay_valid_for_a_moment_without_the_api_server(
    plane: ControlPlane, kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openseer_api.cluster.auth.ALLOWED_SECONDS", 600.0)
    monkeypatch.setattr("openseer_api.cluster.jobs.FOUND_SECONDS", 600.0)
    ann = Tenant(plane, namespace, "ann", "get")
    await until_allowed(kube, ann)
    make_job(plane, namespace, "ann")
    auth, jobs, token, other = KubernetesAuth(kube), KubeJobs(kube), ann.token(), ann.token(expirationSeconds=1200)
    await auth.check(token, namespace, "ann", "read")
    assert await jobs.find(namespace, "ann") is not None
    plane.stop()
    try:
        await auth.check(token, namespace, "ann", "read")
        assert await jobs.find(namespace, "ann") is not None
        with pytest.raises(AuthUnavailable, match="cannot be checked at the moment"):
            await auth.check(token, namespace, "ann", "write")
        with pytest.raises(AuthUnavailable, match="cannot be checked at the moment"):
            await auth.check(other, namespace, "ann", "read")
        with pytest.raises(JobsUnavailable, match="at the moment"):
            await jobs.find(namespace, "bob")
    finally:
        plane.start()
    await auth.check(other, namespace, "ann", "read")
