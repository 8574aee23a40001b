"""A cluster for the tests that need one.

KUBECONFIG set: that cluster, with the user's own kubectl; its nodes must hold the images. Else, as root on Linux, the
one that cluster/cluster.sh starts: a developer's that is up is used and stays up; one started here goes with this
process, however that ends. Else the tests are skipped, and say why. `make test` builds programs and images beforehand,
where it can be watched.
"""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.kube import CLUSTER, OPERATOR_IMAGE, Kube, cluster_sh, restricted_pod

NODES = 3
CANNOT = 3
"""Exit code of cluster.sh: this machine cannot run a cluster."""
UP_SECONDS = 300
"""A start takes some 15 s; more when programs must still be built, and `make test` has done that."""
IMAGES_SECONDS = 600
"""The build of small images whose layers are there takes seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The time limit is a test's own; what it stands on has limits of its own, named above."""
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The cluster, with three nodes or more if it is ours."""
    if os.environ.get("KUBECONFIG"):
        yield Kube("user")
        return
    was_up = subprocess.run([str(CLUSTER), "exec", "true"], capture_output=True, check=False).returncode == 0
    watch = [] if was_up else ["--watch", str(os.getpid())]
    started = subprocess.run(
        [str(CLUSTER), "up", str(NODES), *watch], capture_output=True, text=True, check=False, timeout=UP_SECONDS
    )
    if started.returncode == CANNOT:
        pytest.skip(f"no cluster: {started.stderr.strip()}")
    assert started.returncode == 0, started.stderr
    yield Kube("developer" if was_up else "tests")
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
    name = f"test-{uuid.uuid4().hex[:8]}"
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}}])
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")


# ---- the operator, from the chart

SYSTEM = "openseer-system"
GPU_NODE, GPUS = "n1", 2
INSTALL_SECONDS = 120.0


@pytest.fixture(scope="session")
def operator(kube: Kube, images: None) -> Iterator[str]:
    """The operator runs, installed by helm from the chart as it stands; gives its namespace."""
    values = [
        *("--set", "image.repository=localhost/openseer-operator", "--set", "image.tag=test"),
        *("--set", "workerImage.repository=localhost/openseer-worker", "--set", "workerImage.tag=scripted"),
    ]
    chart = str(CLUSTER.parents[1] / "charts/openseer")
    kube.run("helm", "upgrade", "--install", "openseer", chart, "-n", SYSTEM, "--create-namespace", *values)
    kube.kubectl("rollout", "restart", "deployment", "-n", SYSTEM)
    kube.kubectl("rollout", "status", "deployment", "-n", SYSTEM, "--timeout=100s", seconds=INSTALL_SECONDS)
    yield SYSTEM
    kube.run("helm", "uninstall", "openseer", "-n", SYSTEM)


@pytest.fixture(scope="session")
def gpus(kube: Kube) -> int:
    """How many GPUs the cluster's nodes have to give, as far as the scheduler knows; none of them is touched."""
    if not kube.is_ours:
        pytest.skip("the GPUs of a user's cluster are not ours to count")
    cluster_sh("gpus", GPU_NODE, str(GPUS))
    return GPUS


@pytest.fixture
def own_redis(kube: Kube, namespace: str) -> str:
    """A Redis that a user runs beside the jobs; gives the name of its pod and of the Secret with its URL."""
    pod = restricted_pod("own-redis", OPERATOR_IMAGE, "redis-server", "--save", "", "--dir", "/tmp")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "own-redis"},
        "spec": {"selector": {"app": "own-redis"}, "ports": [{"port": 6379}]},
    }
    url = f"redis://own-redis.{namespace}.svc:6379/0"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own-redis"}, "stringData": {"url": url}}
    kube.apply([pod, service, secret], namespace)
    kube.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/own-redis", "--timeout=40s")
    return "own-redis"
