"""The gateway tests' own API server; without its programs these tests are skipped."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from openseer_api.cluster.client import Kube
from tests.operator.control_plane import ControlPlane, programs


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="session")
def plane(folder: Path) -> Iterator[ControlPlane]:
    found = programs()
    if found is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-tools builds them; or set KUBEBUILDER_ASSETS")
    with ControlPlane(folder, found) as plane:
        yield plane


@pytest.fixture
async def kube(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kube]:
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig))
    kube = await Kube.connect()
    yield kube
    await kube.close()


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.make_namespace(name)
    return name
