"""Jobs in a cluster with an operator installed from the chart: actions of `kubectl` users and their effects.

Workers play the scripted engine; everything else is real: nodes, kubelets, volumes, Redis, driver, operator.
"""

import json
from typing import Any

import pytest

from tests.cluster.support.kube import SCRIPTED_IMAGE, WITHIN, Kube, cluster_sh
from tests.cluster.support.stories import story
from tests.cluster.support.workload import LONG, Workload, let_openseer_read, own_redis

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


SLOW = 0.06
"""Seconds of a step where workers must come while the job runs: a busy machine takes half a minute to start a pod."""


def long_job(kube: Kube, namespace: str, *, step: float = 0.02, groups: int = 12, **spec: Any) -> Workload:
    """11,000 tokens with four slots per worker: 30 s on two workers, 90 s with SLOW steps."""
    return Workload(kube, namespace, groups=groups, length=500, step=step, spec=spec)


def watched_job(kube: Kube, namespace: str, **spec: Any) -> Workload:
    """A job of 15 min on two workers: it runs longer than the story and is deleted with its namespace."""
    return long_job(kube, namespace, step=SLOW, groups=LONG, **spec)


@story
def test_a_job_runs_from_apply_to_complete_and_keeps_its_results(kube: Kube, namespace: str) -> None:
    job = Workload(kube, namespace).apply()
    job.kubectl("wait", "--for=condition=Complete", "rolloutjob/job", WITHIN)
    job.assert_completes()
    job.until_told("Started", "AllReported")
    assert "audit" in job.kubectl("logs", "job-driver")
    job.until(lambda: not job.pods() and not job.pods("redis"), "workers and Redis are gone")
    job.until(lambda: not kube.get_list("statefulsets", namespace), "so is what made Redis")

    def claims() -> list[str]:
        return [entry["metadata"]["name"] for entry in kube.get_list("persistentvolumeclaims", namespace)]

    job.until(lambda: claims() == ["job-output"], "the volume of the results alone is left")
    job.assert_leaves_nothing()


@story
def test_a_suspended_job_has_no_pod_and_resumes_with_its_progress(kube: Kube, namespace: str) -> None:
    job = long_job(kube, namespace, step=SLOW).apply()
    job.until(lambda: job.done() >= 8, "some requests are finished")
    job.patch(suspend=True)
    job.until(lambda: not kube.get_list("pods", namespace), "no pod is left")
    job.until(lambda: job.condition("Suspended").get("message") == "no pod is left", "the status says so")
    finished = job.done()
    job.patch(suspend=False)
    job.until(lambda: job.ready() > 0, "a worker is there again")
    assert job.done() >= finished
    job.hasten()
    job.assert_completes()


@story
def test_scaling_takes_idle_workers_first_and_stays_within_the_bounds(kube: Kube, namespace: str) -> None:
    job = watched_job(kube, namespace, workers={"min": 1, "max": 4, "replicas": 2}).apply()
    job.until_ready(2)
    job.kubectl("scale", "rolloutjob", "job", "--replicas=4")
    job.until_ready(4)
    assert "at most max" in job.refusal("scale", "rolloutjob", "job", "--replicas=5")
    job.kubectl("scale", "rolloutjob", "job", "--replicas=1")
    job.until(lambda: len(job.live()) == 1 and len(job.pods()) == 1, "one worker is left")
    job.until_told("ScaledUp", "ScaledDown")
    assert not job.holds("Failed")


@story
def test_a_horizontal_autoscaler_changes_the_replicas(kube: Kube, namespace: str) -> None:
    job = watched_job(kube, namespace, workers={"replicas": 1}).apply()
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "job", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "name": "job"},
            "minReplicas": 3,
            "maxReplicas": 5,
        },
    }
    job.until_ready(1)
    kube.apply([autoscaler])
    job.until_ready(3)
    assert not job.holds("Failed")


@story
def test_the_tail_of_a_batch_releases_workers(kube: Kube, namespace: str) -> None:
    # One response is far longer than the others: one worker is enough for its last minute.
    job = Workload(kube, namespace, groups=6, length=60, step=0.02, spec={"workers": {"replicas": 3}})
    lines = [json.loads(line) for line in job.prompts().splitlines()]
    lines[0]["lengths"][0] = 4000
    job.prompt_text = "\n".join(map(json.dumps, lines)) + "\n"
    job.apply()
    job.until_told("ScaledDown", words="tail")  # for a running job; with slow pod ends it may complete now
    job.until(lambda: len(job.pods()) <= 1, "one worker is left")
    job.assert_completes()


@story
def test_busy_workers_are_marked_for_autoscalers(kube: Kube, namespace: str) -> None:
    job = watched_job(kube, namespace).apply()

    def stamps() -> list[tuple[str | None, str | None]]:
        notes: list[dict[str, str]] = [pod["metadata"]["annotations"] for pod in job.live().values()]
        return [
            (entry.get("cluster-autoscaler.kubernetes.io/safe-to-evict"), entry.get("karpenter.sh/do-not-disrupt"))
            for entry in notes
        ]

    # All versions of Karpenter accept "true"; the operator limits its duration.
    job.until(lambda: stamps() == [("false", "true")] * 2, "both are stamped busy")
    job.kubectl("delete", "rolloutjob", "job", "--wait=false")


@story
def test_a_changed_template_replaces_workers_one_by_one_and_loses_nothing(kube: Kube, namespace: str) -> None:
    # Four minutes: the work must last until each of the three new workers has started.
    job = long_job(kube, namespace, step=SLOW, groups=48, workers={"replicas": 3}).apply()
    job.until_ready(3)
    before = {pod["metadata"]["uid"] for pod in job.pods()}
    job.patch(workers={"template": {"metadata": {"labels": {"wave": "two"}}}})
    fewest = 3

    def replaced() -> bool:
        nonlocal fewest
        pods = job.live()
        fewest = min(fewest, len(pods))
        labels = [pod["metadata"]["labels"].get("wave") for pod in pods.values()]
        return labels == ["two"] * 3 and not before & {pod["metadata"]["uid"] for pod in pods.values()}

    job.until(replaced, "all workers are new")
    assert fewest >= 2
    job.hasten()
    job.assert_completes()


@story
def test_fewer_gpus_than_workers_is_a_condition_and_not_a_failure(kube: Kube, namespace: str) -> None:
    gpus = 2
    cluster_sh("gpus", "n1", str(gpus))  # as reported to the scheduler; no real GPU is used
    workers = {"replicas": gpus + 1, "resources": {"limits": {"nvidia.com/gpu": 1}}}
    job = long_job(kube, namespace, step=SLOW, workers=workers).apply()
    job.until_condition("PodsScheduled", "False", "nvidia.com/gpu")
    placed = lambda: sum("nodeName" in pod["spec"] for pod in job.pods())  # noqa: E731
    job.until(lambda: placed() == gpus, "so many workers as there are GPUs have a node")
    job.assert_completes()


@story
def test_a_sick_gpu_moves_its_worker_to_another_node(kube: Kube, namespace: str) -> None:
    job = long_job(kube, namespace, step=SLOW)
    container: dict[str, Any] = {"name": "worker", "env": [{"name": "SCRIPTED_ENGINE_SICK", "value": "/tmp/sick"}]}
    job.spec = {"workers": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}
    job.apply()
    job.until_ready(1)
    (name, pod), *_ = job.live().items()
    job.kubectl("exec", name, "--", "python", "-c", "open('/tmp/sick', 'w').write('gpu0: Xid 79')")
    job.until(
        lambda: any(
            entry["spec"].get("nodeName") not in (None, pod["spec"]["nodeName"]) for entry in job.live().values()
        ),
        "a worker runs on another node",
    )
    assert [entry["node"] for entry in job.status()["sickNodes"]] == [pod["spec"]["nodeName"]]
    job.until_told("GpuSick")

    def told_of_the_node() -> bool:
        events = kube.get_list("events", "default")
        return any(entry["reason"] == "GpuSick" and entry["involvedObject"]["kind"] == "Node" for entry in events)

    job.until(told_of_the_node, "an event on the node")
    job.hasten()
    job.assert_completes()


def sidecar(name: str, **fields: Any) -> dict[str, Any]:
    """A container that runs until SIGTERM, as a service mesh's proxy."""
    wait = "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, {s.SIGTERM}); s.sigwait({s.SIGTERM})"
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    plain = {"name": name, "image": SCRIPTED_IMAGE, "command": ["python", "-c", wait], "securityContext": security}
    return plain | {"imagePullPolicy": "IfNotPresent"} | fields


@story
def test_sidecars_that_do_not_end_delay_no_job(kube: Kube, namespace: str) -> None:
    native = sidecar("native", restartPolicy="Always")
    template = {"spec": {"containers": [sidecar("proxy")], "initContainers": [native]}}
    job = long_job(kube, namespace, step=SLOW, workers={"template": template}, driver={"template": template}).apply()
    job.until(lambda: kube.condition("pod", "job-worker-0", "Ready", namespace) == "True", "the worker is ready")
    # The worker's process ends, its proxy does not: the pod is replaced all the same.
    before = job.live()["job-worker-0"]["metadata"]["uid"]
    job.kubectl("exec", "job-worker-0", "--container=worker", "--", "python", "-c", "import os; os.kill(1, 15)")
    job.until(lambda: job.is_another("job-worker-0", before), "the worker is another pod")
    job.assert_completes()
    job.until(lambda: kube.phase("job-driver", namespace) == "Failed", "what ran beside the driver is ended")
    assert "audit" in job.kubectl("logs", "job-driver", "--container=driver")
    job.until(lambda: not job.pods(), "no worker is left")
    job.assert_leaves_nothing()


@story
def test_a_fleet_with_half_its_pods_unscheduled_can_be_drained(kube: Kube, namespace: str) -> None:
    nodes = len(kube.get_list("nodes"))
    apart = {"labelSelector": {"matchLabels": {"openseer.dev/job": "job", "openseer.dev/role": "worker"}}}
    term = apart | {"topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    workers = {"replicas": 2 * nodes, "template": {"spec": {"affinity": affinity}}}
    job = watched_job(kube, namespace, workers=workers).apply()
    job.until_ready(nodes)
    name, uid = next((name, pod["metadata"]["uid"]) for name, pod in job.live().items() if "nodeName" in pod["spec"])
    head = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    create = ("create", f"--raw=/api/v1/namespaces/{namespace}/pods/{name}/eviction", "-f", "-")

    def evicted() -> bool:
        # Retried, as by `kubectl drain`, while the budget does not allow it.
        kube.ask(*create, text=json.dumps(head))
        return uid not in {pod["metadata"]["uid"] for pod in job.live().values()}

    job.until(evicted, "a worker that runs is evicted")
    assert not job.holds("Failed")


@story
def test_a_failed_job_is_revived_and_completes(kube: Kube, namespace: str) -> None:
    job = long_job(kube, namespace, step=SLOW, activeDeadlineSeconds=15).apply()
    job.kubectl("wait", "--for=condition=Failed", "rolloutjob/job", WITHIN)
    job.until(lambda: not kube.get_list("pods", namespace, "openseer.dev/role=redis"), "its Redis is stopped")
    job.patch(activeDeadlineSeconds=None)
    job.until_told("Revived")  # the job is marked as failed until the operator has read the patch
    job.assert_completes()


@story
def test_the_pods_of_a_gang_start_and_end_together(kube: Kube, namespace: str) -> None:
    workers = {"replicas": 2, "parallelism": {"nodes": 2, "tensor": 2}}
    job = watched_job(kube, namespace, workers=workers).apply()
    job.until_ready(2)
    assert sorted(job.live()) == ["job-worker-0-0", "job-worker-0-1", "job-worker-1-0", "job-worker-1-1"]
    before = {name: pod["metadata"]["uid"] for name, pod in job.live().items()}
    job.kubectl("exec", "job-worker-0-1", "--", "python", "-c", "import os; os.kill(1, 9)")
    job.kubectl("exec", "job-worker-0-1", "--", "python", "-c", "import os; os.kill(1, 15)")

    def is_new_as_a_whole() -> bool:
        uids = {name: pod["metadata"]["uid"] for name, pod in job.live().items()}
        kept = {name for name, uid in uids.items() if before.get(name) == uid}
        return uids.keys() == before.keys() and kept == {"job-worker-1-0", "job-worker-1-1"}

    job.until(is_new_as_a_whole, "worker 0 is new as a whole, worker 1 is the same")
    job.until_ready(2)
    assert not job.holds("Failed")


@story
def test_a_repeatedly_failing_worker_fails_the_job_with_its_message(kube: Kube, namespace: str) -> None:
    job = long_job(kube, namespace, failurePolicy={"workerRestarts": 0})
    job.spec["model"] = {"engine": "vllm", "path": "examples/no-such-model"}  # the image has no vLLM
    job.spec["sampling"] = {"forceLengths": False}
    job.apply()
    job.kubectl("wait", "--for=condition=Failed", "rolloutjob/job", WITHIN)
    failed = job.condition("Failed")
    assert failed["reason"] in ("RestartsExhausted", "InvalidInput")
    assert failed["message"]
    job.until(lambda: not job.live() and not job.live("driver"), "nothing runs any more")
    job.assert_leaves_nothing()


@story
def test_invalid_prompts_fail_the_job_at_once_with_the_line(kube: Kube, namespace: str) -> None:
    job = Workload(kube, namespace)
    job.prompt_text = '{"id": "g0", "prompt_token_ids": [1], "lengths": [1, 2, 3, 4]}\nnot JSON\n'
    job.apply()
    job.kubectl("wait", "--for=condition=Failed", "rolloutjob/job", WITHIN)
    assert job.condition("Failed")["reason"] == "InvalidInput"
    assert "line 2" in job.condition("Failed")["message"]


@story
def test_deadline_and_time_to_live_end_a_job(kube: Kube, namespace: str) -> None:
    spec = {"activeDeadlineSeconds": 8}
    job = Workload(kube, namespace, groups=40, length=4000, step=0.05, spec=spec).apply()
    job.kubectl("wait", "--for=condition=Failed", "rolloutjob/job", WITHIN)
    assert job.condition("Failed")["reason"] == "DeadlineExceeded"
    job.patch(ttlSecondsAfterFinished=1)  # set only now, after the job has been observed
    job.kubectl("wait", "--for=delete", "rolloutjob/job", WITHIN)
    job.until(lambda: not kube.get_list("pods,persistentvolumeclaims", namespace), "nothing is left")


@story
def test_a_store_of_the_users_own_is_used_and_cleaned(kube: Kube, namespace: str) -> None:
    redis = own_redis(kube, namespace)
    job = Workload(kube, namespace, spec={"store": {"secretRef": {"name": redis, "key": "url"}}}).apply()
    job.until_condition("Available", "False", "StoreSecretForbidden", f"--resource-name={redis}")
    let_openseer_read(kube, namespace, redis)
    job.assert_completes()
    keys = ("exec", "own-redis", "--", "redis-cli", "--scan", "--pattern", "*")
    assert job.kubectl(*keys).strip()
    assert not job.pods("redis")
    job.assert_leaves_nothing()
    # The remaining key keeps old fences invalid, in case a lost worker returns, and expires by itself.
    (left,) = job.kubectl(*keys).split()
    assert left.endswith(":store")
    assert int(job.kubectl("exec", "own-redis", "--", "redis-cli", "TTL", left)) > 0


@story
def test_a_job_cannot_direct_openseer_to_addresses_of_other_namespaces(kube: Kube, namespace: str) -> None:
    alias = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "alias"},
        "spec": {"type": "ExternalName", "externalName": "kubernetes.default.svc.cluster.local"},
    }
    kube.apply([alias], namespace)
    hosts = ("kubernetes.default.svc:443", "127.0.0.1:8080", f"alias.{namespace}.svc:443")
    one = {"replicas": 1}
    jobs = [
        Workload(kube, namespace, name=f"job-{number}", spec={"workers": one, "store": {"url": f"redis://{host}"}})
        for number, host in enumerate(hosts)
    ]
    for job in jobs:
        job.apply()
    for job in jobs:
        job.until_condition("Available", "False", "StoreHostForbidden", f"NAME.{namespace}.svc")
    jobs[0].kubectl("delete", "rolloutjob", *(job.name for job in jobs), "--wait=false")


@story
def test_deleting_a_job_does_not_hang_when_its_store_is_gone(kube: Kube, namespace: str) -> None:
    redis = own_redis(kube, namespace)
    let_openseer_read(kube, namespace, redis)
    job = watched_job(kube, namespace, store={"secretRef": {"name": redis, "key": "url"}}).apply()
    job.until_ready(2)
    job.kubectl("delete", "pod", "own-redis", "--grace-period=0", "--force")
    job.assert_leaves_nothing()
    job.until_told("StoreNotCleaned")
