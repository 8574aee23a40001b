"""Usual faults of clusters, caused on real nodes while a job runs: the job completes without loss, doubles or leaks.

`assert_completes` reads the results and the driver's audit each time: one result per request, every token accounted
for.
"""

import time
from typing import Any

import pytest

from tests.cluster.support.chart import install
from tests.cluster.support.kube import SCRIPTED_IMAGE, WITHIN, Kube, cluster_sh, restricted_pod
from tests.cluster.support.stories import story
from tests.cluster.support.workload import Workload

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(2400, func_only=True),
    pytest.mark.usefixtures("operator"),
]


def begun(kube: Kube, namespace: str, groups: int = 16, step: float = 0.02) -> Workload:
    """Starts a job of three workers and waits until all are ready and some requests are done, or a quarter of the
    requests. 16 groups take 40 s, 40 groups 100 s.

    Stories that wait for returning workers use 40 groups and longer steps, so that the job does not end before.
    """
    job = Workload(kube, namespace, groups=groups, length=600, step=step, spec={"workers": {"replicas": 3}}).apply()
    job.until(lambda: job.done() > job.requests // 4 or (job.done() > 0 and job.ready() == 3), "the work has begun")
    return job


def node_of(pod: dict[str, Any]) -> str:
    return pod["spec"].get("nodeName", "")


@story
def test_random_pod_deletions_lose_nothing(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace)
    for name in ("job-worker-0", "job-worker-2", "job-driver", "job-worker-1"):
        job.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found")  # the pod may not be there again yet
        time.sleep(3)
    job.kubectl("delete", "pod", "job-worker-0", "--grace-period=0", "--force", "--ignore-not-found")
    job.assert_completes()
    job.assert_leaves_nothing()


def test_workers_of_a_disconnected_node_move_and_the_node_may_return(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace, groups=40, step=0.04)
    job.until(lambda: all(node_of(pod) for role in ("driver", "redis", "worker") for pod in job.pods(role)), "placed")
    keep = {node_of(pod) for role in ("driver", "redis") for pod in job.pods(role)}
    victims = [pod for pod in job.pods() if node_of(pod) not in keep]
    if not victims:
        pytest.skip("every worker shares a node with the driver or Redis here")
    name, uid = victims[0]["metadata"]["name"], victims[0]["metadata"]["uid"]
    node = node_of(victims[0])
    cluster_sh("cut", node)
    try:
        # The eviction of half a minute later, done at once: the node will never report that the pod has ended.
        job.kubectl("delete", "pod", name, "--wait=false")

        def runs_elsewhere() -> bool:
            found = job.live().get(name)
            if found is None or found["metadata"]["uid"] == uid or node_of(found) == node:
                return False
            return found["status"].get("phase") == "Running"

        job.until(runs_elsewhere, "the worker runs on another node")
    finally:
        cluster_sh("join", node)
    job.hasten()
    job.assert_completes()
    job.assert_leaves_nothing()


def test_a_redis_on_a_disconnected_node_waits_with_a_condition(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace, groups=40)
    (redis,) = job.pods("redis")
    node, uid = node_of(redis), redis["metadata"]["uid"]
    cluster_sh("cut", node)
    try:
        # The eviction of half a minute later, done at once. The limit is a minute and a half.
        job.kubectl("delete", "pod", "job-redis-0", "--wait=false")
        why = "is not attached to nodes by a CSI driver"  # volumes are folders of the nodes here
        job.until_condition("Available", "False", "StoreNodeLost", why, f"kubectl delete node {node}")
        assert [pod["metadata"]["uid"] for pod in job.pods("redis")] == [uid]
        job.until_told("StoreNodeLost")
    finally:
        cluster_sh("join", node)
    job.until(lambda: any(pod["metadata"]["uid"] != uid for pod in job.live("redis").values()), "Redis runs again")
    job.hasten()
    job.assert_completes()
    job.assert_leaves_nothing()


def test_a_jobs_report_alone_marks_no_node_as_unfit(kube: Kube, namespace: str, operator: str) -> None:
    sick = {"name": "worker", "env": [{"name": "SCRIPTED_ENGINE_SICK", "value": "/tmp/sick"}]}
    spec = {"workers": {"replicas": 1, "template": {"spec": {"containers": [sick]}}}}
    install(kube, "--set", "nodeRepair.condition=GpuReady")
    try:
        job = Workload(kube, namespace, groups=16, length=600, step=0.02, spec=spec).apply()
        job.until_ready(1)
        node = node_of(job.live()["job-worker-0"])
        job.kubectl("exec", "job-worker-0", "--", "python", "-c", "open('/tmp/sick', 'w').write('gpu0: Xid 79')")
        # This node has no GPU, and the operator's own probe reports that.
        job.until(lambda: (node, "GpuProbeFailed") in node_events(kube), "the operator looked itself")
        job.until(lambda: (node, "GpuSick") in node_events(kube), "an event on the node")
        assert "GpuReady" not in [each["type"] for each in kube.get("node", node)["status"]["conditions"]]
        job.until(
            lambda: not kube.get_list("pods", operator, "app.kubernetes.io/name=openseer-probe"), "no probe is left"
        )
        job.hasten()
        job.assert_completes()
    finally:
        install(kube)


def node_events(kube: Kube) -> set[tuple[str, str]]:
    """Name and reason of the events on nodes."""
    events = kube.get_list("events", "default")
    return {(event["involvedObject"]["name"], event["reason"]) for event in events}


def test_draining_a_node_moves_all_its_requests(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace)
    node = node_of(job.pods()[0])
    try:
        job.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", WITHIN, "--force")
        job.until(lambda: all(node_of(pod) != node for pod in job.pods() if pod["spec"].get("nodeName")), "left")
    finally:
        job.kubectl("uncordon", node)
    job.assert_completes()
    assert all(entry["count"] == 0 for entry in job.status().get("failures", []))


def test_a_killed_operator_is_replaced_by_the_other_replica(kube: Kube, namespace: str, operator: str) -> None:
    job = begun(kube, namespace, groups=40, step=0.04)
    job.until(lambda: "job-worker-1" in job.live(), "the worker that will go")
    before = job.live()["job-worker-1"]["metadata"]["uid"]
    lease = kube.get("lease", "openseer", operator)
    holder = lease["spec"]["holderIdentity"]
    kube.kubectl("--namespace", operator, "delete", "pod", holder, "--grace-period=0", "--force")
    job.kubectl("delete", "pod", "job-worker-1", "--grace-period=0", "--force")
    job.until(
        lambda: kube.get("lease", "openseer", operator)["spec"]["holderIdentity"] not in ("", holder),
        "another replica leads",
    )
    job.until(lambda: job.is_another("job-worker-1", before), "it has made a worker")
    job.hasten()
    job.assert_completes()


def test_a_minute_without_an_api_server_stops_nothing(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace, groups=40)
    before = job.done()
    cluster_sh("stop-api")
    time.sleep(60)
    cluster_sh("start-api")
    # The operator restarts after an outage of this length.
    job.until(lambda: job.done() > before, "the work went on and the status follows")
    job.hasten()
    job.assert_completes()
    job.assert_leaves_nothing()


@story
def test_a_killed_redis_restarts_with_all_its_data(kube: Kube, namespace: str) -> None:
    job = begun(kube, namespace)
    job.kubectl("delete", "pod", "job-redis-0", "--grace-period=0", "--force")
    job.until(lambda: bool(job.live("redis")), "Redis is back")
    job.assert_completes()


def test_on_full_nodes_a_worker_waits_and_the_others_continue(kube: Kube, namespace: str) -> None:
    workers = {"replicas": 3, "resources": {"requests": {"cpu": "500m"}}}
    job = Workload(kube, namespace, groups=40, length=600, step=0.02, spec={"workers": workers}).apply()
    job.until(lambda: job.ready() > 0 and all(node_of(pod) for pod in job.pods()), "some work, and all have a place")
    try:
        for node in kube.get_list("nodes"):
            fill(kube, namespace, node, but=300)
        job.kubectl("scale", "rolloutjob", "job", "--replicas=4")
        job.until_condition("PodsScheduled", "False", "Insufficient cpu")
        job.until(lambda: job.holds("Available"), "the others take requests")
    finally:
        job.kubectl("delete", "pod", "--selector=chaos=hog", "--grace-period=0", "--force")
    job.hasten()
    job.assert_completes()


def fill(kube: Kube, namespace: str, node: dict[str, Any], *, but: int) -> None:
    """Requests a node's free CPU except for `but` thousandths."""
    name = node["metadata"]["name"]
    there = [pod for pod in kube.get_list("pods", "") if node_of(pod) == name]
    pods = [pod for pod in there if pod["status"].get("phase", "Pending") in ("Pending", "Running")]
    asked = [
        entry.get("resources", {}).get("requests", {}).get("cpu", "0") for pod in pods for entry in containers(pod)
    ]
    free = milli(node["status"]["allocatable"]["cpu"]) - sum(map(milli, asked)) - but
    kube.apply([hog(f"hog-{name}", free, nodeSelector={"kubernetes.io/hostname": name})], namespace)
    kube.kubectl("wait", "-n", namespace, "--for=condition=PodScheduled", f"pod/hog-{name}", WITHIN)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return pod["spec"]["containers"]


def milli(cpu: str) -> int:
    """A CPU quantity in thousandths."""
    return int(cpu.removesuffix("m")) if cpu.endswith("m") else int(float(cpu) * 1000)


def hog(name: str, milli_cpu: int, **spec: Any) -> dict[str, Any]:
    """A pod that requests CPU and uses none."""
    pod = restricted_pod(name, SCRIPTED_IMAGE, "sleep", "3600", **spec)
    pod["metadata"]["labels"]["chaos"] = "hog"
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{milli_cpu}m"}}
    return pod
