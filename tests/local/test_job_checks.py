"""Requirements of a job that this machine cannot meet are reported before the start."""

import errno
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_local import job_checks
from openseer_local.job_checks import check_local_job, has_pool, without_effect


def job(**pool: Any) -> RolloutJob:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p"}, "kvPool": {"backend": "shared-directory"} | pool}
    document = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "j"}, "spec": spec}
    return parse_job(document, "job")


def test_a_writable_pool_is_accepted_and_nothing_is_created(tmp_path: Path) -> None:
    check_local_job(job(path=str(tmp_path)), "batch")
    check_local_job(job(path=str(tmp_path / "new" / "pool")), "batch")
    assert not list(tmp_path.iterdir())


def test_a_pool_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"kvPool\.path: .*/file/kv: workers cannot write there: .*Not a directory"):
        check_local_job(job(path=str(tmp_path / "file" / "kv")), "batch")


def test_a_read_only_pool_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(folder: Path) -> None:
        assert folder == tmp_path
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(job_checks, "check_folder", check)
    with pytest.raises(InputError, match="workers cannot write there: Read-only file system; name a folder"):
        check_local_job(job(path=str(tmp_path)), "batch")


def test_a_claim_without_a_path_is_noted_as_no_local_pool(tmp_path: Path) -> None:
    (note,) = (line for line in without_effect(job(pvc={"claimName": "kv", "path": "rollouts"})) if "KV pool" in line)
    assert note == "there is no KV pool: spec.kvPool.pvc exists only in Kubernetes; on one machine give path"
    assert not [line for line in without_effect(job(path=str(tmp_path))) if "KV pool" in line]


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ({"backend": "none"}, False),
        ({"backend": "mooncake"}, True),
        ({"backend": "shared-directory", "path": "kv"}, True),
        ({"backend": "shared-directory", "pvc": {"claimName": "kv", "path": "kv"}}, False),
    ],
)
def test_a_pool_is_local_unless_it_is_a_volume(pool: dict[str, Any], expected: bool) -> None:
    assert has_pool(job(**pool)) is expected
