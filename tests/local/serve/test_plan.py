"""Checks before a serving job starts, and its stored token."""

import socket
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.parse import parse_job
from openseer_driver.folder_lock import FolderHeldError
from openseer_driver.run_folder import RunFolder
from openseer_local.serve.plan import Address, ServingPlan, ServingRecord


def plan(folder: Path, host: str = "127.0.0.1", **options: Any) -> ServingPlan:
    spec = {"mode": "serve", "model": {"path": "none", "engine": "scripted"}, **options.pop("spec", {})}
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "served"},
        "spec": spec,
    }
    return ServingPlan(parse_job(document, "job"), document, RunFolder(folder), Address(host, 0), **options)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"suspend": True}, "spec.suspend: found true"),
        ({"workers": {"replicas": 0}}, "spec.workers.replicas: found 0"),
        ({"store": {"secretRef": {"name": "redis", "key": "url"}}}, "spec.store.secretRef: exists only in Kubernetes"),
        ({"store": {"secretRef": {"name": "redis", "key": "url"}}}, "kubectl apply --dry-run=server"),
    ],
)
def test_a_manifest_that_this_machine_cannot_serve_is_refused(
    tmp_path: Path, spec: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        plan(tmp_path / "run", spec=spec).check()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_public_address_needs_the_users_own_token(tmp_path: Path, host: str) -> None:
    plan(tmp_path / "run", host).check()
    plan(tmp_path / "run", "0.0.0.0", given_token="long enough").check()
    with pytest.raises(InputError, match="which other machines can reach"):
        plan(tmp_path / "run", "0.0.0.0").check()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.0/8", "trainer.example"])
def test_only_a_single_address_can_be_trusted_without_a_token(tmp_path: Path, address: str) -> None:
    plan(tmp_path / "run", trusted="10.0.0.7").check()
    with pytest.raises(InputError, match="--no-token-from: found"):
        plan(tmp_path / "run", trusted=address).check()


def test_a_relative_output_folder_has_an_absolute_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert plan(Path("runs/served")).token_file == tmp_path / "runs/served/token"


def test_a_token_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    with plan(tmp_path / "run").open_folder() as made:
        assert len(made) >= 32
        assert (tmp_path / "run/token").stat().st_mode & 0o777 == 0o600
    with plan(tmp_path / "run").open_folder() as again:
        assert again == made
    with plan(tmp_path / "run", given_token="mine").open_folder() as given:
        assert given == "mine"


def test_a_folder_of_another_manifest_is_refused_by_the_fields_that_differ(tmp_path: Path) -> None:
    first = plan(tmp_path / "run")
    with first.open_folder():
        first.folder.store_folder.mkdir()
    record = ServingRecord(first)
    assert not record.resumed
    record.note("running")
    assert ServingRecord(first).resumed

    plan(tmp_path / "run", spec={"workers": {"replicas": 7}}).check()
    with pytest.raises(InputError, match=r"changed: spec\.groupSize"):
        plan(tmp_path / "run", spec={"groupSize": 3}).check()
    plan(tmp_path / "run", spec={"groupSize": 3}, fresh=True).check()
    first.folder.store_folder.rmdir()
    with pytest.raises(InputError, match="its folder store/, which holds the batches, is missing"):
        plan(tmp_path / "run").check()


def test_a_second_server_with_fresh_is_refused_and_deletes_nothing(tmp_path: Path) -> None:
    first = plan(tmp_path / "run")
    with first.open_folder():
        ServingRecord(first).note("running")
        first.folder.create(first.folder.store_folder)
        with pytest.raises(FolderHeldError), plan(tmp_path / "run", fresh=True).open_folder():
            pass
        assert {path.name for path in first.folder.path.iterdir()} == {
            *("lock", "token", "job.json", "run.json", "logs", "store")
        }
    with plan(tmp_path / "run", fresh=True).open_folder():
        assert {path.name for path in first.folder.path.iterdir()} == {"lock", "token", "job.json", "logs"}


def test_a_port_in_use_is_refused_and_a_free_one_is_reserved(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(InputError, match=f"--port: {taken.port} is in use"):
            taken.bind()
    with Address("127.0.0.1", 0).bind() as bound:
        assert bound.getsockname()[1] > 0
