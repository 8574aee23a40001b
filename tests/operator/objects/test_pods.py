"""Worker and driver pods: restrictions, arguments, placement."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.plan.scaling import template_hash
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.reading import read_pod
from openseer_operator.pod_settings import CaBundle, JobPodSettings, Probes
from openseer_operator.settings import OperatorSettings

SETTINGS = OperatorSettings(namespace="openseer", worker_image="openseer-worker:1", store_image="openseer-operator:1")
UID = "11111111-2222-3333-4444-555555555555"
GANG = {"parallelism": {"tensor": 2, "nodes": 2}}


def job(labels: dict[str, str] | None = None, **spec: Any) -> RolloutJob:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "arithmetic", "namespace": "lab", "labels": labels or {}},
        "spec": {"model": {"path": "models/tiny"}, "prompts": {"path": "prompts.jsonl"}, **spec},
    }
    return parse_job(document, "job.yaml")


def worker(rollout_job: RolloutJob, *, rank: int = 0, avoid: tuple[str, ...] = (), **settings: Any) -> dict[str, Any]:
    chosen = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", **settings)
    return worker_pod(
        rollout_job,
        UID,
        chosen,
        "openseer-worker:1",
        index=3,
        rank=rank,
        attempt=2,
        secret="arithmetic-redis",
        avoid=avoid,
    )


def driver(rollout_job: RolloutJob, pods: JobPodSettings | None = None) -> dict[str, Any]:
    settings = replace(SETTINGS, pods=pods or SETTINGS.pods)
    return driver_pod(rollout_job, UID, settings, "openseer-worker:1", attempt=1, secret="arithmetic-redis")


def main(pod: dict[str, Any]) -> dict[str, Any]:
    return pod["spec"]["containers"][0]


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in main(pod)["env"]}


def volume(pod: dict[str, Any], path: str) -> dict[str, Any]:
    """The volume mounted at `path` in the main container, with `ro` for read-only."""
    mount = next(entry for entry in main(pod)["volumeMounts"] if entry["mountPath"] == path)
    source = next(entry for entry in pod["spec"]["volumes"] if entry["name"] == mount["name"])
    return {**{name: value for name, value in source.items() if name != "name"}, "ro": mount.get("readOnly", False)}


def flag(pod: dict[str, Any], name: str) -> str | None:
    command = main(pod)["command"]
    return command[command.index(name) + 1] if name in command else None


@pytest.mark.parametrize("pod", [worker(job()), driver(job())], ids=["worker", "driver"])
def test_a_pod_is_restricted_and_holds_no_credentials(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert main(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("arithmetic", False)
    assert (spec["enableServiceLinks"], spec["restartPolicy"]) == (False, "Never")
    assert volume(pod, "/tmp") == {"emptyDir": {}, "ro": False}
    assert volume(pod, "/dev/shm") == {"emptyDir": {"medium": "Memory"}, "ro": False}


@pytest.mark.parametrize("pod", [worker(job()), driver(job())], ids=["worker", "driver"])
def test_a_pod_belongs_to_its_job_and_has_its_incarnation(pod: dict[str, Any]) -> None:
    (owner,) = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("RolloutJob", "arithmetic", UID, True)
    assert pod["metadata"]["labels"]["openseer.dev/job"] == "arithmetic"
    assert pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "openseer-operator"
    assert pod["metadata"]["annotations"]["openseer.dev/attempt"] in ("1", "2")
    assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"
    assert "karpenter.sh/do-not-disrupt" not in pod["metadata"]["annotations"]


def test_a_worker_gets_its_job_number_and_store() -> None:
    pod = worker(job())
    assert pod["metadata"]["name"] == "arithmetic-worker-3"
    assert main(pod)["command"] == [
        *("python", "-m", "openseer_worker.main", "--job", "/etc/openseer/job.json"),
        *("--index", "3", "--http-port", "8080"),
    ]
    assert volume(pod, "/etc/openseer") == {"configMap": {"name": "arithmetic-job"}, "ro": True}
    found = environment(pod)
    assert found["OPENSEER_STORE_URL"] == {"secretKeyRef": {"name": "arithmetic-redis", "key": "url"}}
    assert found["OPENSEER_NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert found["OPENSEER_POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}
    assert (found["OPENSEER_TERMINATION_LOG"], found["HOME"]) == ("/dev/termination-log", "/tmp")
    labels = pod["metadata"]["labels"]
    assert [labels[f"openseer.dev/{name}"] for name in ("role", "worker", "rank")] == ["worker", "3", "0"]
    assert pod["metadata"]["annotations"]["openseer.dev/template"] == template_hash(job())


def test_a_store_of_the_users_own_is_named_by_its_url_or_its_secret() -> None:
    assert environment(worker(job(store={"url": "redis://r:6379"})))["OPENSEER_STORE_URL"] == "redis://r:6379"
    reference = {"name": "mine", "key": "dsn"}
    assert environment(driver(job(store={"secretRef": reference})))["OPENSEER_STORE_URL"] == {"secretKeyRef": reference}


def test_a_worker_has_its_grace_period_and_a_little_to_exit() -> None:
    assert worker(job(workers={"gracePeriodSeconds": 300}))["spec"]["terminationGracePeriodSeconds"] == 305


def test_probes_wait_for_a_long_start_then_check_liveness_and_readiness() -> None:
    container = main(worker(job()))
    start, ready, live = (container[f"{name}Probe"] for name in ("startup", "readiness", "liveness"))
    assert (start["httpGet"]["path"], start["periodSeconds"] * start["failureThreshold"]) == ("/readyz", 3600)
    assert (ready["httpGet"]["path"], live["httpGet"]["path"]) == ("/readyz", "/healthz")
    assert live["periodSeconds"] * live["failureThreshold"] == 60


def test_the_pods_of_a_gang_find_their_leader_by_name() -> None:
    pods = [worker(job(workers=GANG), rank=rank) for rank in range(2)]
    assert [pod["spec"]["hostname"] for pod in pods] == ["arithmetic-worker-3-0", "arithmetic-worker-3-1"]
    assert {pod["spec"]["subdomain"] for pod in pods} == {"arithmetic-workers"}
    assert [flag(pod, "--rank") for pod in pods] == ["0", "1"]
    assert {flag(pod, "--leader") for pod in pods} == {"arithmetic-worker-3-0.arithmetic-workers.lab.svc"}
    alone = worker(job())
    assert (flag(alone, "--rank"), "hostname" in alone["spec"]) == (None, False)


def test_a_worker_has_no_default_requests_and_a_gpu_worker_a_toleration() -> None:
    plain, gpu = worker(job()), worker(job(workers={"resources": {"limits": {"nvidia.com/gpu": 2}}}))
    assert "resources" not in main(plain)
    assert main(gpu)["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert toleration in gpu["spec"]["tolerations"]
    assert toleration not in plain["spec"]["tolerations"]


def test_a_pod_on_a_lost_node_is_evicted_after_half_a_minute() -> None:
    taints = {
        toleration["key"]: toleration.get("tolerationSeconds") for toleration in worker(job())["spec"]["tolerations"]
    }
    assert taints == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}


def test_nodes_to_avoid_are_added_to_every_term_of_the_users_affinity() -> None:
    terms = [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]} for zone in "ab"]
    node_affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    template = {"spec": {"affinity": {"nodeAffinity": node_affinity, "podAffinity": {}}}}
    rollout_job = job(workers={"template": template})
    before = copy.deepcopy(rollout_job.spec.workers.template)
    affinity = worker(rollout_job, avoid=("n2", "n1"))["spec"]["affinity"]
    rules = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in ("n1", "n2")]
    found = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert found == [{**term, "matchFields": rules} for term in terms]
    assert affinity["podAffinity"] == {}
    assert rollout_job.spec.workers.template == before


def test_nodes_excluded_by_the_users_template_are_not_our_avoided_nodes() -> None:
    rule = {"key": "metadata.name", "operator": "NotIn", "values": ["theirs"]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [rule]}]}}
    rollout_job = job(workers={"template": {"spec": {"affinity": {"nodeAffinity": required}}}})
    for avoid in ((), ("n2", "n1")):
        made = worker(rollout_job, avoid=avoid)
        record = read_pod(made | {"metadata": made["metadata"] | {"uid": "u", "resourceVersion": "1"}})
        assert record is not None
        assert record.pod.avoids == set(avoid)


def test_a_worker_without_an_affinity_also_avoids_bad_nodes() -> None:
    rule = {"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}
    required = worker(job(), avoid=("n1",))["spec"]["affinity"]["nodeAffinity"]
    assert required == {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [rule]}]}
    }
    assert "affinity" not in worker(job())["spec"]


def test_a_model_comes_from_a_claim_or_an_image_read_only() -> None:
    claim = worker(job(model={"path": "/models/m", "volume": {"pvc": {"claimName": "weights"}}}))
    assert volume(claim, "/models") == {
        "persistentVolumeClaim": {"claimName": "weights", "readOnly": True},
        "ro": True,
    }
    image = worker(job(model={"path": "/models/m", "volume": {"image": {"reference": "r/m:1"}}}))
    assert volume(image, "/models") == {"image": {"reference": "r/m:1"}, "ro": True}


def test_the_cache_is_the_pods_own_or_a_claim_and_its_path_is_set() -> None:
    own = worker(job())
    assert volume(own, "/cache") == {"emptyDir": {}, "ro": False}
    assert environment(own)["HF_HOME"] == "/cache/huggingface"
    assert environment(own)["VLLM_CACHE_ROOT"] == "/cache/vllm"
    shared = worker(job(model={"path": "m", "cache": {"pvc": {"claimName": "cache"}}}))
    assert volume(shared, "/cache") == {"persistentVolumeClaim": {"claimName": "cache"}, "ro": False}


def test_hub_token_and_offline_mode_are_set_only_on_request() -> None:
    token = {"name": "hub", "key": "token"}
    found = environment(worker(job(model={"path": "m", "hubTokenSecret": token, "offline": True})))
    assert found["HF_TOKEN"] == {"secretKeyRef": token}
    assert (found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert not {"HF_TOKEN", "HF_HUB_OFFLINE"} & environment(worker(job())).keys()


def test_the_operators_pull_policy_applies_to_its_default_image_only() -> None:
    assert main(worker(job(), pull_policy="Never"))["imagePullPolicy"] == "Never"
    assert main(worker(job(imagePullPolicy="Always"), pull_policy="Never"))["imagePullPolicy"] == "Always"
    assert "imagePullPolicy" not in main(worker(job(image="mine:1"), pull_policy="Never"))
    assert worker(job(imagePullSecrets=[{"name": "registry"}]))["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_pods_have_the_templates_labels_and_not_the_jobs() -> None:
    queue = "kueue.x-k8s.io/queue-name"
    template = {"metadata": {"labels": {"team": "a"}}}
    labels = worker(job(labels={queue: "q"}, workers={"template": template}))["metadata"]["labels"]
    assert (labels.get("team"), queue in labels) == ("a", False)


@pytest.mark.parametrize(
    ("container", "advice"),
    [
        ({"image": "x"}, "set spec.image"),
        ({"imagePullPolicy": "Always"}, "set spec.imagePullPolicy"),
        ({"livenessProbe": {}}, "the operator sets it"),
        ({"args": ["--index", "4"]}, "the operator sets it"),
    ],
)
def test_a_template_cannot_override_fields_with_an_owner(container: dict[str, Any], advice: str) -> None:
    (field,) = container
    rollout_job = job(workers={"template": {"spec": {"containers": [{"name": "worker", **container}]}}})
    with pytest.raises(InputError) as caught:
        worker(rollout_job)
    path = f"spec.workers.template.spec.containers[0].{field}"
    assert str(caught.value) == f"{path}: cannot be set here; {advice}"


def test_the_grace_period_has_its_own_field() -> None:
    rollout_job = job(workers={"template": {"spec": {"terminationGracePeriodSeconds": 1}}})
    with pytest.raises(
        InputError, match=r"template\.spec\.terminationGracePeriodSeconds: .* set spec.workers.gracePeriodSeconds"
    ):
        worker(rollout_job)


@pytest.mark.parametrize(
    ("output", "claim", "folder"),
    [
        ({}, "arithmetic-output", "/output/arithmetic"),
        ({"path": "results/today"}, "arithmetic-output", "/output/results/today"),
        ({"pvc": {"claimName": "mine", "path": "/a/b"}}, "mine", "/output/a/b"),
        ({"pvc": {"claimName": "mine", "path": "."}}, "mine", "/output"),
    ],
)
def test_the_driver_writes_to_a_folder_on_a_volume(output: dict[str, Any], claim: str, folder: str) -> None:
    pod = driver(job(output=output))
    assert flag(pod, "--output") == folder
    assert volume(pod, "/output") == {"persistentVolumeClaim": {"claimName": claim}, "ro": False}


@pytest.mark.parametrize(
    ("prompts", "expected", "source"),
    [
        (
            {"configMap": {"name": "questions", "key": "q.jsonl"}},
            "/prompts/q.jsonl",
            {"configMap": {"name": "questions", "items": [{"key": "q.jsonl", "path": "q.jsonl"}]}},
        ),
        (
            {"pvc": {"claimName": "data", "path": "sets/q.jsonl"}},
            "/prompts/sets/q.jsonl",
            {"persistentVolumeClaim": {"claimName": "data"}},
        ),
    ],
)
def test_prompts_are_mounted_read_only(prompts: dict[str, Any], expected: str, source: dict[str, Any]) -> None:
    pod = driver(job(prompts=prompts))
    assert flag(pod, "--prompts") == expected
    assert volume(pod, "/prompts") == {**source, "ro": True}


@pytest.mark.parametrize("prompts", [{"path": "p.jsonl"}, {"url": "https://host/p.jsonl"}])
def test_prompts_in_the_image_or_behind_a_url_need_no_volume(prompts: dict[str, Any]) -> None:
    pod = driver(job(prompts=prompts))
    assert flag(pod, "--prompts") is None
    assert "prompts" not in {entry["name"] for entry in pod["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"output": {"path": "../other"}}, "spec.output.path"),
        ({"output": {"pvc": {"claimName": "c", "path": "a/../../b"}}}, "spec.output.pvc.path"),
        ({"prompts": {"pvc": {"claimName": "c", "path": "../p"}}}, "spec.prompts.pvc.path"),
    ],
)
def test_a_path_cannot_leave_its_volume(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"{field}: found .*, allowed: a path on the volume, without \.\."):
        driver(job(**spec))


def test_the_driver_has_small_default_resources() -> None:
    assert main(driver(job()))["resources"] == {"requests": {"cpu": "250m", "memory": "512Mi"}}
    asked = {"limits": {"memory": "2Gi"}}
    assert main(driver(job(driver={"resources": asked})))["resources"] == asked


def test_the_driver_is_built_on_its_own_template() -> None:
    rollout_job = job(driver={"template": {"spec": {"priorityClassName": "high"}}})
    assert driver(rollout_job)["spec"]["priorityClassName"] == "high"
    assert "priorityClassName" not in worker(rollout_job)["spec"]


def test_the_start_limit_is_the_jobs_or_else_the_admins() -> None:
    def start(pod: dict[str, Any]) -> int:
        probe = main(pod)["startupProbe"]
        return probe["periodSeconds"] * probe["failureThreshold"]

    pods = JobPodSettings(start_seconds=7200)
    assert start(worker(job(), pods=pods)) == 7200
    assert start(worker(job(workers={"startSeconds": 10800}), pods=pods)) == 10800
    assert start(driver(job(workers={"startSeconds": 10800}))) == 3600


def test_probes_are_those_of_the_admin() -> None:
    probes = Probes(timeout_seconds=5, readiness_period_seconds=3, liveness_period_seconds=20, liveness_failures=9)
    container = main(worker(job(), pods=JobPodSettings(probes=probes)))
    live = container["livenessProbe"]
    assert (container["readinessProbe"]["periodSeconds"], live["periodSeconds"], live["failureThreshold"]) == (3, 20, 9)
    assert {container[f"{name}Probe"]["timeoutSeconds"] for name in ("startup", "readiness", "liveness")} == {5}


def test_a_longer_start_limit_replaces_no_worker() -> None:
    assert template_hash(job(workers={"startSeconds": 7200})) == template_hash(job())


def test_a_pod_has_the_admins_whole_security_context() -> None:
    pods = JobPodSettings(pod_security_context={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}})
    assert worker(job(), pods=pods)["spec"]["securityContext"] == pods.pod_security_context


def test_our_variables_and_a_templates_override_those_of_the_admin() -> None:
    pods = JobPodSettings(env=({"name": "HTTPS_PROXY", "value": "a"}, {"name": "HOME", "value": "/root"}))
    assert environment(worker(job(), pods=pods)).items() >= {"HTTPS_PROXY": "a", "HOME": "/tmp"}.items()
    container = {"name": "worker", "env": [{"name": "HTTPS_PROXY", "value": "b"}]}
    rollout_job = job(workers={"template": {"spec": {"containers": [container]}}})
    assert environment(worker(rollout_job, pods=pods))["HTTPS_PROXY"] == "b"
    names = [variable["name"] for variable in main(worker(rollout_job, pods=pods))["env"]]
    assert len(names) == len(set(names))


def test_drivers_send_traces_and_logs_have_one_form() -> None:
    variable = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}
    pods = JobPodSettings(driver_env=(variable,), log_format="json")
    assert variable in main(driver(job(), pods=pods))["env"]
    assert variable not in main(worker(job(), pods=pods))["env"]
    for pod in (driver(job(), pods=pods), worker(job(), pods=pods)):
        assert environment(pod)["OPENSEER_LOG"] == "json"
    assert "OPENSEER_LOG" not in environment(worker(job()))


def test_certificates_of_the_admin_are_mounted_and_set_for_libraries() -> None:
    pod = worker(job(), pods=JobPodSettings(ca_bundle=CaBundle(config_map="trust", key="ca.pem")))
    items = [{"key": "ca.pem", "path": "ca.pem"}]
    assert volume(pod, "/etc/openseer-ca") == {"configMap": {"name": "trust", "items": items}, "ro": True}
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        assert environment(pod)[name] == "/etc/openseer-ca/ca.pem"
    assert "SSL_CERT_FILE" not in environment(worker(job()))


def test_a_pod_gets_the_labels_of_its_job_that_the_admin_chose() -> None:
    labels = {
        "team": "a",
        "example.com/cost": "7",
        "other": "x",
        "app.kubernetes.io/name": "y",
        "openseer.dev/rank": "9",
    }
    template = {"metadata": {"labels": {"team": "b"}}}
    pods = JobPodSettings(inherit_labels=("team", "example.com/*", "app.kubernetes.io/name", "openseer.dev/*"))
    found = worker(job(labels=labels, workers={"template": template}), pods=pods)["metadata"]["labels"]
    assert (found["team"], found["example.com/cost"], "other" in found) == ("b", "7", False)
    assert (found["app.kubernetes.io/name"], found["openseer.dev/rank"]) == ("openseer", "0")
