"""The operator, the pods and the trainers' API compute the same URL of a job's store."""

import base64
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import KeyRef, RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import (
    derived_password,
    derived_secret_name,
    managed_url,
    manages_store,
    store_name,
    url_in,
    url_reference,
)


def job(name: str = "arithmetic", **store: Any) -> RolloutJob:
    document: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name},
        "spec": {"mode": "serve", "model": {"path": "m"}, "store": store},
    }
    return parse_job(document, "job.yaml")


def test_the_longest_names_leave_room_for_a_stateful_sets_revision() -> None:
    assert store_name(job("arithmetic")) == "arithmetic-redis"
    assert store_name(job("j" * 46)) == "j" * 46 + "-redis"
    long = [store_name(job("j" * 49 + end)) for end in "ab"]
    assert {len(name) for name in long} == {52}
    assert long[0] != long[1]


def test_the_url_of_a_managed_redis_is_in_its_own_secret() -> None:
    assert manages_store(job())
    assert url_reference(job(), "its-own") == KeyRef(name="its-own", key="url")


def test_a_redis_of_the_users_own_is_named_by_a_secret_or_by_its_url() -> None:
    named = job(secretRef={"name": "mine", "key": "redis"})
    assert not manages_store(named)
    assert url_reference(named, "its-own") == KeyRef(name="mine", key="redis")
    assert url_reference(job(url="redis://mine:6379/0"), "its-own") is None


def test_the_url_of_a_secret_is_decoded_without_its_line_end() -> None:
    text = base64.b64encode(b"redis://:p@mine:6379/0\n").decode()
    assert url_in({"url": text}, KeyRef(name="mine", key="url")) == "redis://:p@mine:6379/0"


@pytest.mark.parametrize("data", [{}, {"url": "not base64"}, {"url": base64.b64encode(b"\xff").decode()}])
def test_a_secret_without_a_url_is_reported_with_its_key(data: dict[str, str]) -> None:
    with pytest.raises(InputError, match="Secret mine: key url: missing or no text, allowed: the URL of a Redis"):
        url_in(data, KeyRef(name="mine", key="url"))


OLD, NEW = b"o" * 32, b"n" * 32


def test_the_password_of_a_managed_redis_is_derived_from_the_key() -> None:
    name = derived_secret_name(job(), "uid", NEW)
    password = derived_password(job(), "uid", name, [NEW, OLD])
    assert name.startswith("arithmetic-redis-")
    assert password is not None
    assert len(password) == 64
    assert managed_url(job(), password) == f"redis://:{password}@arithmetic-redis.default.svc:6379/0"


def test_a_job_keeps_its_password_when_the_installation_gets_another_key() -> None:
    name = derived_secret_name(job(), "uid", OLD)
    assert derived_password(job(), "uid", name, [NEW, OLD]) == derived_password(job(), "uid", name, [OLD])
    assert derived_password(job(), "uid", name, [NEW]) is None


def test_each_job_and_each_key_has_its_own_secret_and_password() -> None:
    names = {derived_secret_name(job(), uid, key) for uid in ("a", "b") for key in (OLD, NEW)}
    made = {
        derived_password(job(), uid, derived_secret_name(job(), uid, key), [key]) for uid in "ab" for key in (OLD, NEW)
    }
    assert (len(names), len(made)) == (4, 4)
    assert derived_password(job(), "uid", store_name(job()), [OLD, NEW]) is None
