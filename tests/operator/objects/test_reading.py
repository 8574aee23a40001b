"""Parsing of pods and jobs from the API server."""

from typing import Any

import pytest

from openseer_core.plan.observation import Pod, PodPhase
from openseer_operator.kube.cache import Cache
from openseer_operator.objects.reading import LONGEST_REQUEST, JsonObject, read_job, read_pod


def pod(
    status: JsonObject | None = None,
    *,
    role: str = "worker",
    meta: JsonObject | None = None,
    annotations: dict[str, str] | None = None,
    node: str = "",
    version: int = 10,
) -> JsonObject:
    """A pod as in a LIST or a watch."""
    labels = {"openseer.dev/job": "sums", "openseer.dev/role": role}
    if role == "worker":
        labels |= {"openseer.dev/worker": "3", "openseer.dev/rank": "1"}
    return {
        "metadata": {
            "name": f"sums-{role}-3-1",
            "namespace": "team",
            "uid": "u-pod",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": labels,
            "annotations": annotations or {},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "u-other"},
                {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "name": "sums", "uid": "u-job"}
                | {"controller": True},
            ],
            **(meta or {}),
        },
        "spec": {"containers": [{"name": role}], **({"nodeName": node} if node else {})},
        "status": status or {"phase": "Pending"},
    }


def seen(raw: JsonObject) -> Pod:
    record = read_pod(raw)
    assert record is not None
    return record.pod


def container(state: JsonObject, name: str = "worker") -> JsonObject:
    return {"name": name, "ready": "running" in state, "restartCount": 0, "image": "i", "state": state}


def test_a_new_pod_is_pending_without_a_problem() -> None:
    record = read_pod(
        pod(annotations={"openseer.dev/template": "abc", "openseer.dev/attempt": "4"}, status={"phase": "Pending"})
    )
    assert record is not None
    assert (record.key, record.role, record.owner, record.version) == (("team", "sums"), "worker", "u-job", 10)
    assert record.pod == Pod(
        "sums-worker-3-1", "u-pod", 3, rank=1, template="abc", attempt=4, phase=PodPhase.PENDING, stamp=None
    )


def test_a_ready_pod_has_its_node_and_stamp() -> None:
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
    status = {"phase": "Running", "conditions": conditions, "containerStatuses": [container({"running": {}})]}
    for word, busy in (("false", True), ("true", False)):
        annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": word}
        found = seen(pod(status, node="n7", annotations=annotations))
        assert (found.phase, found.ready, found.node, found.stamp) == (PodPhase.RUNNING, True, "n7", busy)
        assert found.conditions == {("PodScheduled", "True"), ("Ready", "True")}


def test_a_pod_has_the_time_from_creation_to_readiness() -> None:
    made, ready = "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": ready}
    raw = pod({"phase": "Running", "conditions": [condition]})
    raw["metadata"]["creationTimestamp"] = made
    assert seen(raw).start_seconds == 90.0
    raw["status"]["conditions"] = [condition | {"status": "False"}]
    assert seen(raw).start_seconds is None


def test_an_unschedulable_pod_has_the_reason() -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = seen(pod({"phase": "Pending", "conditions": [condition]}))
    assert (found.unschedulable, found.problem) == (True, message)


def test_a_pod_whose_scheduling_is_gated_is_not_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated"}
    raw = pod({"phase": "Pending", "conditions": [condition]})
    for gate, holder in (("kueue.x-k8s.io/admission", "Kueue has not admitted it yet"), ("x.org/y", "its holder")):
        raw["spec"]["schedulingGates"] = [{"name": gate}]
        found = seen(raw)
        assert (found.unschedulable, found.gated) == (False, True)
        assert found.problem.startswith(f"it waits for its scheduling gate {gate}: {holder}")


def test_an_image_that_cannot_be_pulled_is_a_problem() -> None:
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nope:1"'}
    found = seen(pod({"phase": "Pending", "containerStatuses": [container({"waiting": waiting})]}, node="n1"))
    assert found.problem == 'ImagePullBackOff: Back-off pulling image "nope:1"'
    assert not found.unschedulable


def test_a_container_in_creation_is_no_problem() -> None:
    for reason in ("ContainerCreating", "PodInitializing"):
        status = {"phase": "Pending", "containerStatuses": [container({"waiting": {"reason": reason}})]}
        assert seen(pod(status)).problem == ""


def test_an_init_container_that_cannot_start_is_a_problem() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}
    status = {"phase": "Pending", "initContainerStatuses": [container({"waiting": waiting}, "init")]}
    assert seen(pod(status)).problem == 'CreateContainerConfigError: secret "x" not found'


def test_a_container_killed_for_memory_has_reason_and_exit_code() -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-01-02T03:04:05Z"}
    found = seen(pod({"phase": "Failed", "containerStatuses": [container({"terminated": ended})]}, node="n1"))
    assert (found.phase, found.exit_code) == (PodPhase.FAILED, 137)
    assert found.problem.startswith("OOMKilled")


def test_message_and_exit_code_come_from_our_container_not_a_sidecar() -> None:
    status = {
        "phase": "Failed",
        "containerStatuses": [
            container({"terminated": {"exitCode": 1, "message": "sidecar"}}, "log-shipper"),
            container({"terminated": {"exitCode": 2, "message": "error: no such model\n"}}, "driver"),
        ],
    }
    found = seen(pod(status, role="driver"))
    assert (found.index, found.component, found.exit_code) == (None, "driver", 2)
    assert found.message == "error: no such model\n"


ENDED: JsonObject = {"exitCode": 0, "reason": "Completed"}
BROKEN: JsonObject = {"exitCode": 7, "reason": "Error", "message": "error: the engine broke"}
RUNS: JsonObject = {"running": {}}
CRASHES = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize("sidecar", [RUNS, CRASHES, {"terminated": BROKEN}, {"terminated": ENDED}])
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
@pytest.mark.parametrize(("own", "phase"), [(ENDED, PodPhase.SUCCEEDED), (BROKEN, PodPhase.FAILED)])
def test_a_pod_ends_with_our_container_and_its_outcome(
    own: JsonObject, phase: PodPhase, kind: str, sidecar: JsonObject
) -> None:
    runs = "terminated" not in sidecar
    status: JsonObject = {"phase": "Running" if runs else "Failed", "containerStatuses": []}
    status.setdefault(kind, []).append(container(sidecar, "istio-proxy"))
    status["containerStatuses"].append(container({"terminated": own}))
    found = seen(pod(status, node="n1"))
    assert (found.phase, found.exit_code, found.ready) == (phase, own["exitCode"], False)
    assert (found.lingers, found.setup_failed, found.problem) == (runs, False, "")


def test_an_ended_sidecar_leaves_its_worker_in_service() -> None:
    def states(ready: str, containers: str) -> list[JsonObject]:
        return [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": containers}]

    sidecar = container({"terminated": BROKEN}, "log-shipper")
    status = {"phase": "Running", "containerStatuses": [container(RUNS), sidecar]}
    found = seen(pod(status | {"conditions": states("False", "False")}, node="n1"))
    assert (found.phase, found.ready, found.problem) == (PodPhase.RUNNING, True, "")
    # For a lost node Kubernetes resets only Ready.
    assert not seen(pod(status | {"conditions": states("False", "True")}, node="n1")).ready
    starting = container(RUNS) | {"ready": False}
    status = {"phase": "Running", "containerStatuses": [starting], "conditions": states("False", "False")}
    assert not seen(pod(status, node="n1")).ready


def test_a_container_that_prevented_ours_from_starting_is_named() -> None:
    waiting = container({"waiting": {"reason": "PodInitializing"}})
    setup = container({"terminated": {"exitCode": 1, "message": "no such host\n"}}, "fetch")
    status = {"phase": "Failed", "containerStatuses": [waiting], "initContainerStatuses": [setup]}
    found = seen(pod(status, node="n1"))
    assert (found.phase, found.exit_code, found.setup_failed) == (PodPhase.FAILED, None, True)
    assert found.problem == "init container fetch: exit code 1: no such host"


def test_an_evicted_pod_counts_as_disrupted_with_the_reason() -> None:
    status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory.",
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}],
    }
    found = seen(pod(status, node="n1"))
    assert (found.phase, found.exit_code) == (PodPhase.FAILED, None)
    assert (found.problem, found.message) == ("Evicted", "The node was low on resource: memory.")
    assert ("DisruptionTarget", "True") in found.conditions


def test_a_deleted_pod_has_its_deadline() -> None:
    meta = {"deletionTimestamp": "1970-01-01T00:02:00Z", "deletionGracePeriodSeconds": 60}
    found = seen(pod({"phase": "Running"}, meta=meta))
    assert (found.leaving, found.gone_by) == (True, 120.0)


def test_a_pod_of_unknown_phase_counts_as_running() -> None:
    assert seen(pod({"phase": "Unknown", "reason": "NodeLost"})).phase is PodPhase.RUNNING


def test_pods_without_a_job_are_ignored() -> None:
    foreign = pod()
    foreign["metadata"]["labels"] = {"app": "web"}
    nameless = pod()
    del nameless["metadata"]["labels"]["openseer.dev/worker"]
    assert read_pod(foreign) is None
    assert read_pod(nameless) is None
    assert read_pod(pod(role="helper")) is None


def job(version: int = 5, generation: int = 1, **spec: Any) -> JsonObject:
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {
            "name": "sums",
            "namespace": "team",
            "uid": "u-job",
            "resourceVersion": str(version),
            "generation": generation,
            "finalizers": ["openseer.dev/store"],
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, **spec},
        "status": {"reason": "Running"},
    }


def test_a_job_is_parsed_once_per_generation() -> None:
    first = read_job(job(version=5))
    second = read_job(job(version=6), first)
    third = read_job(job(version=7, generation=2, groupSize=4), second)
    assert first.job is not None
    assert second.job is first.job
    assert third.job is not None
    assert third.job.spec.group_size == 4
    assert (second.version, second.finalizers, second.status) == (6, ("openseer.dev/store",), {"reason": "Running"})


def test_a_request_to_revive_is_read_at_every_version() -> None:
    first = read_job(job(version=5))
    raw = job(version=6)
    raw["metadata"]["annotations"] = {"openseer.dev/revive": "x" * 5000}
    assert first.revive == ""
    assert read_job(raw, first).revive == "x" * LONGEST_REQUEST


def test_an_invalid_manifest_gives_all_its_problems_and_no_job() -> None:
    record = read_job(job(groupSize=0, nonsense=1))
    assert record.job is None
    assert "groupSize" in record.problems
    assert "nonsense" in record.problems


def test_the_cache_never_replaces_newer_by_older() -> None:
    cache = Cache()
    assert cache.put_pod(pod({"phase": "Running"}, version=11)) == ("team", "sums")
    assert cache.put_pod(pod({"phase": "Pending"}, version=10)) is None
    assert [kept.pod.phase for kept in cache.pods(("team", "sums"))] == [PodPhase.RUNNING]
    assert cache.put_job(job(version=9)) == ("team", "sums")
    assert cache.put_job(job(version=9)) is None
    assert cache.put_job(job(version=10)) == ("team", "sums")


def test_a_late_answer_does_not_restore_a_deleted_object() -> None:
    cache = Cache()
    cache.put_pod(pod(version=10))
    assert cache.drop_pod(("team", "sums"), "sums-worker-3-1", "u-pod") == ("team", "sums")
    assert cache.put_pod(pod(version=12)) is None
    assert list(cache.pods(("team", "sums"))) == []


def test_the_deletion_of_an_earlier_object_keeps_its_successor() -> None:
    cache = Cache()
    cache.put_pod(pod(version=20, meta={"uid": "u-new"}))
    assert cache.drop_pod(("team", "sums"), "sums-worker-3-1", "u-old") is None
    assert len(list(cache.pods(("team", "sums")))) == 1


def test_pods_of_an_earlier_job_of_the_name_are_not_the_jobs_own() -> None:
    cache = Cache()
    cache.put_job(job())
    cache.put_pod(pod())
    record = cache.job(("team", "sums"))
    assert record is not None
    assert len(cache.pods_of(record)) == 1
    later = job(version=30)
    later["metadata"]["uid"] = "u-later"
    cache.put_job(later)
    record = cache.job(("team", "sums"))
    assert record is not None
    assert cache.pods_of(record) == ()


def test_a_pod_refused_by_its_node_differs_from_a_disrupted_one() -> None:
    for reason in ("UnexpectedAdmissionError", "TopologyAffinityError", "OutOfcpu", "OutOfnvidia.com/gpu"):
        refused = seen(pod({"phase": "Failed", "reason": reason, "message": "no device"}, node="n1"))
        assert (refused.refused, refused.problem, refused.message) == (True, reason, "no device")
    assert not seen(pod({"phase": "Failed", "reason": "Evicted"}, node="n1")).refused
