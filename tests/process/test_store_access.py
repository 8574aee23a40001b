"""The URLs of stores for operator and gateway: derived, or read from Secrets if a namespace allows it."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError, StoreForbiddenError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import derived_password, derived_secret_name, managed_url, store_name
from openseer_process.store_access import StoreAccess, cluster_domain

OLD, NEW = b"o" * 32, b"n" * 40


def job(**store: Any) -> RolloutJob:
    document: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "grpo", "namespace": "lab"},
        "spec": {"mode": "serve", "model": {"path": "m"}, "store": store},
    }
    return parse_job(document, "job.yaml")


async def nobody_reads(name: str) -> Mapping[str, str]:
    raise AssertionError(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a Secret as Kubernetes mounts it, after nine rotations."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "9").write_bytes(OLD)
    (tmp_path / "10").write_bytes(NEW + b"\n")
    return tmp_path


async def test_the_secret_of_a_managed_redis_is_not_read_after_a_rotation(folder: Path) -> None:
    access = StoreAccess(folder)
    for key in (NEW, OLD):
        secret = derived_secret_name(job(), "uid", key)
        password = derived_password(job(), "uid", secret, [key])
        assert password is not None
        assert await access.url(job(), "uid", secret, nobody_reads) == managed_url(job(), password)


async def test_secrets_that_no_key_derives_are_read_by_their_names(folder: Path) -> None:
    read: list[str] = []

    async def reads(name: str) -> Mapping[str, str]:
        read.append(name)
        return {"url": base64.b64encode(b"redis://:random@grpo-redis.lab.svc:6379/0").decode()}

    own = job(secretRef={"name": "mine", "key": "url"})
    for each, secret in ((job(), store_name(job())), (job(), "grpo-redis-0123456789"), (own, "")):
        assert await StoreAccess(folder).url(each, "uid", secret, reads) == "redis://:random@grpo-redis.lab.svc:6379/0"
    assert read == ["grpo-redis", "grpo-redis-0123456789", "mine"]


async def test_a_url_of_a_manifest_or_secret_must_be_in_the_list_of_hosts(folder: Path) -> None:
    async def reads(_name: str) -> Mapping[str, str]:
        return {"url": base64.b64encode(b"redis://kubernetes.default.svc:443").decode()}

    access = StoreAccess.read({"OPENSEER_STORE_KEYS": str(folder)})
    for each in (job(url="redis://127.0.0.1"), job(url="unix:///run/r"), job(secretRef={"name": "s", "key": "url"})):
        with pytest.raises(StoreForbiddenError) as refused:
            await access.url(each, "uid", "", reads)
        assert refused.value.reason == "StoreHostForbidden"
    assert await access.url(job(url="redis://mine.lab.svc"), "uid", "", nobody_reads) == "redis://mine.lab.svc"
    secret = derived_secret_name(job(), "uid", OLD)
    assert (await access.url(job(), "uid", secret, nobody_reads)).endswith("@grpo-redis.lab.svc:6379/0")


def test_a_secret_that_may_not_be_read_is_reported_with_commands(folder: Path) -> None:
    error = StoreAccess(folder, readers=("system:openseer", "system:openseer-api")).secret_forbidden("lab", "mine")
    assert error.reason == "StoreSecretForbidden"
    assert str(error) == (
        "Secret mine with the URL of this job's store may not be read by openseer, though pods can read it; allow it "
        "in namespace lab: kubectl create role openseer-mine -n lab --verb=get --resource=secrets --resource-name=mine "
        "&& kubectl create rolebinding openseer-mine -n lab --role=openseer-mine --serviceaccount=system:openseer "
        "--serviceaccount=system:openseer-api"
    )


def test_the_highest_number_is_the_newest_key_without_a_restart(folder: Path) -> None:
    access = StoreAccess(folder)
    assert access.keys() == (NEW, OLD)
    (folder / "11").write_bytes(b"x" * 32)
    assert access.keys()[0] == b"x" * 32


@pytest.mark.parametrize("edge", [b"\n", b" ", b"\t", b"\x0b"])
def test_a_key_of_raw_bytes_keeps_its_first_and_last_bytes(tmp_path: Path, edge: bytes) -> None:
    key = edge + 30 * b"x" + edge
    (tmp_path / "1").write_bytes(key)
    (tmp_path / "2").write_bytes(key + b"\n")
    assert StoreAccess(tmp_path).keys() == (key, key)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "found no file in .* that is named by a number"),
        ({"key": OLD}, "found no file in .* that is named by a number"),
        ({"1": b"short\n"}, "1: found 5 bytes, allowed: 32 to 1024 bytes"),
        ({"1": OLD, "2": b""}, "2: found 0 bytes, allowed: 32 to 1024 bytes"),
    ],
)
def test_an_installation_without_a_valid_key_fails_at_its_start(
    tmp_path: Path, files: Mapping[str, bytes], expected: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"OPENSEER_STORE_KEYS: .*{expected}"):
        StoreAccess.read({"OPENSEER_STORE_KEYS": str(tmp_path)})
    with pytest.raises(InputError, match="OPENSEER_STORE_KEYS: missing; the chart sets it on its Deployments"):
        StoreAccess.read({})


def test_the_domain_of_the_cluster_is_read_from_a_pods_search_list(tmp_path: Path) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(
        "nameserver 10.96.0.10\nsearch system.svc.k8s.corp. svc.k8s.corp. k8s.corp. corp\noptions ndots:5\n"
    )
    assert cluster_domain(resolver) == "k8s.corp"
    resolver.write_text("search corp\n")
    assert cluster_domain(resolver) == cluster_domain(tmp_path / "none") == "cluster.local"
