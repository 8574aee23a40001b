"""A cluster for the tests that need one.

KUBECONFIG set: that cluster, with the user's own kubectl; its nodes must hold the images. Else, as root on Linux, the
one that cluster/cluster.sh starts: a developer's running cluster is used and stays up; one started here ends with this
process in every case. Else the tests are skipped with the reason. `make test` builds programs and images beforehand,
with visible output.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.support.chart import SYSTEM, install
from tests.cluster.support.kube import CLUSTER, WITHIN, Kube, cluster_sh
from tests.cluster.support.stories import Stage, chosen, restricted_namespace

NODES = 3
CANNOT = 3
"""Exit code of cluster.sh: this machine cannot run a cluster."""
UP_SECONDS = 600
"""A start takes some 15 s; more when programs must still be built, and `make test` has done that."""
TEST_SECONDS = 900
"""For one test; each of its waits has a limit of its own."""
IMAGES_SECONDS = 600
"""The build of small images whose layers are there takes seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The time limit covers the test only; its fixtures have their own limits, named above. Order: tests without an
    operator, stories, tests that change nodes, and last those marked `last`, which stop the cluster."""
    items.sort(key=_turn)
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


def _turn(item: pytest.Item) -> tuple[bool, bool, bool]:
    fixtures: tuple[str, ...] = getattr(item, "fixturenames", ())
    needs_operator = "operator" in fixtures
    return item.get_closest_marker("last") is not None, needs_operator, needs_operator and "stage" not in fixtures


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The cluster, with three nodes or more if it is ours."""
    if os.environ.get("KUBECONFIG"):
        with Kube("user") as kube:
            yield kube
        return
    was_up = subprocess.run([str(CLUSTER), "exec", "true"], capture_output=True, check=False).returncode == 0
    watch = [] if was_up else ["--watch", str(os.getpid())]
    started = subprocess.run(
        [str(CLUSTER), "up", str(NODES), *watch], capture_output=True, text=True, check=False, timeout=UP_SECONDS
    )
    if started.returncode == CANNOT:
        pytest.skip(f"no cluster: {started.stderr.strip()}")
    assert started.returncode == 0, started.stderr
    with Kube("developer" if was_up else "tests") as kube:
        yield kube
    if not was_up:
        cluster_sh("down")


@pytest.fixture(scope="session")
def images(kube: Kube) -> None:
    """The operator's image and the worker's with the scripted engine are in every node."""
    if kube.is_ours:
        cluster_sh("load", "operator", "scripted", seconds=IMAGES_SECONDS)


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace for one test, at the restricted Pod Security level."""
    with restricted_namespace(kube) as name:
        yield name


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest, kube: Kube, operator: str) -> Iterator[Stage]:
    """Runs all stories concurrently, each of them once."""
    stage = Stage(kube, chosen(request.session.items))
    yield stage
    stage.close()


# ---- the operator, from the chart


@pytest.fixture(scope="session")
def operator(kube: Kube, images: None) -> Iterator[str]:
    """Installs the operator with helm and returns its namespace."""
    install(kube)
    if kube.owner != "tests":
        # It may run already, and a developer may have rebuilt the image under the same name.
        kube.kubectl("rollout", "restart", "deployment", "-n", SYSTEM)
        kube.kubectl("rollout", "status", "deployment", "-n", SYSTEM, WITHIN)
    yield SYSTEM
    kube.run("helm", "uninstall", "openseer", "--ignore-not-found", "-n", SYSTEM)
