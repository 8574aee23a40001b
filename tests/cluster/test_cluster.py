"""The cluster of cluster/ is a real one: pods, names, volumes, lost nodes; it leaves nothing behind."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster.support.kube import (
    OPERATOR_IMAGE,
    SCRIPTED_IMAGE,
    Kube,
    KubeError,
    cluster_sh,
    restricted_pod,
    wait_until,
)
from tests.repository import ROOT

pytestmark = pytest.mark.cluster

SERVE = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"


@pytest.fixture
def ours(kube: Kube) -> Kube:
    if not kube.is_ours:
        pytest.skip("the nodes of a cluster of one's own are not cut off")
    return kube


def test_every_node_is_ready(kube: Kube) -> None:
    nodes = [node["metadata"]["name"] for node in kube.get_list("nodes")]
    assert nodes
    wait_until(lambda: all(kube.condition("node", name, "Ready") == "True" for name in nodes), "all are Ready")


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("image", "module"),
    [(OPERATOR_IMAGE, "openseer_store.connect, kopf, kubernetes"), (SCRIPTED_IMAGE, "openseer_worker.loop")],
)
def test_an_image_runs_under_the_restricted_profile(kube: Kube, namespace: str, image: str, module: str) -> None:
    program = f"import os, {module}; print('as', os.getuid(), 'in', os.getcwd())"
    kube.apply([restricted_pod("hello", image, "python", "-c", program)], namespace=namespace)
    assert kube.finished("hello", namespace) == "as 65532 in /opt/openseer\n"


@pytest.mark.usefixtures("images")
def test_a_pod_beyond_the_restricted_level_is_refused(kube: Kube, namespace: str) -> None:
    pod = restricted_pod("greedy", SCRIPTED_IMAGE, "true", hostNetwork=True)
    with pytest.raises(KubeError, match="violates PodSecurity"):
        kube.apply([pod], namespace=namespace)


@pytest.mark.usefixtures("images")
def test_a_service_is_found_by_name_from_another_node(kube: Kube, namespace: str) -> None:
    nodes = [node["metadata"]["name"] for node in kube.get_list("nodes")]
    first, last = nodes[0], nodes[-1]
    serve = restricted_pod("serve", SCRIPTED_IMAGE, "python", "-c", SERVE, nodeName=first)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "files"},
        "spec": {"selector": {"app": "serve"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kube.apply([serve, service], namespace=namespace)
    wait_until(lambda: kube.condition("pod", "serve", "Ready", namespace) == "True", "the server is ready")
    ask = f"""
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://files.{namespace}.svc.cluster.local/LICENSE", timeout=2).status)
        break
    except OSError:
        time.sleep(0.2)
"""
    client = restricted_pod("ask", SCRIPTED_IMAGE, "python", "-c", ask, nodeName=last)
    kube.apply([client], namespace=namespace)
    assert kube.finished("ask", namespace) == "200\n"


@pytest.mark.usefixtures("images")
def test_a_claim_is_bound_and_can_be_written_to(kube: Kube, namespace: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "results"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    program = "p = open('/output/line', 'a+'); p.write('whole\\n'); p.seek(0); print(p.read(), end='')"
    pod = restricted_pod(
        "write",
        SCRIPTED_IMAGE,
        "python",
        "-c",
        program,
        volumes=[{"name": "output", "persistentVolumeClaim": {"claimName": "results"}}],
        mounts=[{"name": "output", "mountPath": "/output"}],
    )
    kube.apply([claim, pod], namespace=namespace)
    assert kube.finished("write", namespace) == "whole\n"
    assert kube.get("pvc", "results", namespace)["status"]["phase"] == "Bound"


@pytest.mark.timeout(1800, func_only=True)
def test_a_disconnected_node_becomes_not_ready_and_returns(ours: Kube) -> None:
    last = ours.get_list("nodes")[-1]["metadata"]["name"]
    cluster_sh("cut", last)
    try:
        wait_until(lambda: ours.condition("node", last, "Ready") == "Unknown", f"{last} is missed")
    finally:
        cluster_sh("join", last)
    wait_until(lambda: ours.condition("node", last, "Ready") == "True", f"{last} is Ready again")


def test_a_node_reports_gpus(ours: Kube) -> None:
    cluster_sh("gpus", "n0", "8")
    try:
        assert ours.get("node", "n0")["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    finally:
        cluster_sh("gpus", "n0", "0")


def test_the_api_server_can_be_stopped_and_started(ours: Kube) -> None:
    cluster_sh("stop-api")
    try:
        with pytest.raises(KubeError):
            ours.kubectl("get", "nodes", "--request-timeout=2s")
    finally:
        cluster_sh("start-api")
    assert ours.get_list("nodes")


@pytest.mark.last
@pytest.mark.slow
@pytest.mark.timeout(1800, func_only=True)
def test_a_killed_cluster_stops_no_image_build_and_leaves_nothing(ours: Kube) -> None:
    if ours.owner == "developer":
        pytest.skip("a developer's cluster is up, and a machine has room for one: cluster/cluster.sh down")
    cluster_sh("down")
    try:
        owner = subprocess.Popen(["sleep", "3600"])
        cluster_sh("up", "1", "--watch", str(owner.pid))
        ours.kubectl("create", "deployment", "some", "--image=docker.io/local/pause:1", "--replicas=3")
        wait_until(lambda: _available(ours, "some") == 3, "three pods run")
        programs = [line.split()[0] for line in cluster_sh("status").splitlines() if " runs " in line]
        assert "n0-containerd" in programs
        pids = [int(cluster_sh("pid", program)) for program in programs]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        # A busy machine ends them slowly; until then the cluster counts as up.
        wait_until(lambda: not any(map(_runs, pids)), "all programs have ended")
        subprocess.run([ROOT / "cluster" / "images.sh", "operator"], check=True, timeout=600)
        assert len(cluster_sh("leftovers").splitlines()) > 10
        owner.kill()
        owner.wait()
        wait_until(lambda: cluster_sh("leftovers") == "", "nothing is left")
    finally:
        cluster_sh("up", "3", "--watch", str(os.getpid()))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _available(kube: Kube, deployment: str) -> int:
    return kube.get("deployment", deployment)["status"].get("availableReplicas", 0)
