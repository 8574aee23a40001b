"""The operator tests' own API server; without its programs these tests are skipped."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from openseer_operator.control import store_poller
from openseer_operator.kube.api import Api
from tests.operator.control_plane import ControlPlane, programs
from tests.operator.job_store import JobStore


@pytest.fixture(autouse=True)
def frequent_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are read ten times a second; at the usual interval of a second, most tests would only wait."""
    monkeypatch.setattr(store_poller, "READ_EVERY_SECONDS", 0.1)


@pytest.fixture(scope="session")
def server_programs() -> Path:
    found = programs()
    if found is None:
        pytest.skip("no etcd and kube-apiserver: make cluster-tools builds them; or set KUBEBUILDER_ASSETS")
    return found


@pytest.fixture(scope="session")
def control_plane(server_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The server that all tests share; none of them stops it."""
    with ControlPlane(tmp_path_factory.mktemp("api"), server_programs) as plane:
        yield plane


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """The kubeconfig of the server's administrator."""
    return control_plane.kubeconfig


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A namespace for one test."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    control_plane.make_namespace(name)
    return name


@pytest.fixture
async def api(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The operator's own client for that server."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    client = await Api.connect()
    yield client
    await client.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[JobStore]:
    """The store of default/job."""
    async with JobStore(tmp_path / "redis") as found:
        yield found
