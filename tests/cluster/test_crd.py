"""The RolloutJob definition in a real API server: refused objects, immutable fields, printed columns."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.cluster.support.kube import WITHIN, Kube, wait_until
from tests.repository import CLUSTER_EXAMPLES, ROOT

pytestmark = pytest.mark.cluster

NAME = "rolloutjobs.openseer.dev"
MINIMAL: dict[str, Any] = {"model": {"path": "m"}, "prompts": {"path": "p"}}
# Added to the minimal spec: each field's value before a change is tried.
RUNNING: dict[str, Any] = {
    "model": {"path": "m", "engineArgs": {"max_model_len": 4096}},
    "workers": {"replicas": 2, "min": 1, "max": 4},
    "store": {"template": {"spec": {"priorityClassName": "high"}}},
}
BOUND: dict[str, Any] = {"rollout": {"policy": "round-robin"}, "workers": {"replicas": 2}}


def merged(spec: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch applied, as the API server applies one."""
    result = copy.deepcopy(dict(spec))
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            below = result.get(name)
            result[name] = merged(
                cast("dict[str, Any]", below) if isinstance(below, dict) else {}, cast("Mapping[str, Any]", value)
            )
        else:
            result[name] = value
    return result


def manifest(name: str, spec: Mapping[str, Any]) -> str:
    return json.dumps(
        {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": name}, "spec": spec}
    )


class Jobs:
    """The rollout jobs of one namespace, by kubectl."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def run(self, *args: str, stdin: str | None = None) -> str:
        return self.kube.kubectl("--namespace", self.namespace, *args, text=stdin)

    def refusal(self, *args: str, stdin: str | None = None) -> str:
        """kubectl's error output if the API server refuses; empty if it does not."""
        result = self.kube.ask("--namespace", self.namespace, *args, text=stdin)
        return result.stderr if result.returncode else ""

    def create(self, name: str, patch: Mapping[str, Any]) -> None:
        self.run("create", "--filename=-", stdin=manifest(name, merged(MINIMAL, patch)))

    def refused_patch(self, name: str, patch: Mapping[str, Any]) -> str:
        return self.refusal("patch", "rolloutjob", name, "--type=merge", "--patch", json.dumps({"spec": patch}))


@pytest.fixture(scope="module")
def definition(kube: Kube) -> Iterator[None]:
    """Installs the CRD of this tree; removes it afterwards unless it existed before."""
    known = kube.ask("get", "crd", NAME).returncode == 0
    kube.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(ROOT / "crds/rolloutjobs.yaml"))
    kube.kubectl("wait", "--for=condition=Established", f"crd/{NAME}", WITHIN)
    # The kind is served and described a little later.
    wait_until(lambda: kube.ask("explain", "rolloutjob.spec").returncode == 0, "the API server describes its fields")
    yield
    if not known:
        kube.kubectl("delete", "crd", NAME)


@pytest.fixture
def unattended(kube: Kube) -> None:
    """Skips the test if an operator writes the status of jobs."""
    if kube.get_list("deployments", "", "app.kubernetes.io/name=openseer"):
        pytest.skip("an operator runs in this cluster and writes the status itself")


@pytest.fixture
def jobs(kube: Kube, namespace: str, definition: None) -> Iterator[Jobs]:
    """The jobs of a namespace, deleted after the test; no controller acts on them."""
    of_namespace = Jobs(kube, namespace)
    yield of_namespace
    of_namespace.run("delete", "rolloutjobs", "--all", "--wait=false")


@pytest.mark.parametrize("path", CLUSTER_EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_accepted(jobs: Jobs, path: Path, tmp_path: Path) -> None:
    # The server does not have KEDA's kinds; test_manifests.py checks their fields.
    documents = [entry for entry in yaml.safe_load_all(path.read_text()) if not entry["apiVersion"].startswith("keda")]
    known = tmp_path / path.name
    known.write_text(yaml.safe_dump_all(documents))
    assert "created" in jobs.run("create", "--dry-run=server", "--validate=strict", "--filename", str(known))


def test_the_defaults_of_a_minimal_job_are_written_out(jobs: Jobs) -> None:
    jobs.create("minimal", {})
    spec = json.loads(jobs.run("get", "rolloutjob", "minimal", "--output=json"))["spec"]
    assert (spec["mode"], spec["rollout"]["policy"], spec["workers"]["replicas"]) == ("batch", "context-aware", 1)
    assert (spec["output"], spec["failurePolicy"]["driverRestarts"]) == ({"size": "1Gi"}, 6)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sampling": {"topP": 1.5}}, "spec.sampling.topP: Invalid value: 1.5"),
    ({"rollout": {"policy": "random"}}, 'spec.rollout.policy: Unsupported value: "random"'),
    ({"samplng": {}}, 'unknown field "spec.samplng"'),
    ({"prompts": None}, "mode batch needs prompts: one of path, pvc, configMap and url"),
    ({"prompts": {"url": "https://a/b"}}, "exactly one of path, pvc, configMap and url"),
    ({"mode": "serve"}, "prompts are not used in mode serve"),
    ({"sampling": {"minTokens": 5, "maxTokens": 4}}, "minTokens is at most maxTokens"),
    ({"rollout": {"leaseSeconds": 2, "checkpointSeconds": 1}}, "checkpointSeconds is less than a third of"),
    ({"workers": {"min": 3}}, "replicas is at least min"),
    ({"workers": {"replicas": 3, "max": 2}}, "replicas is at most max"),
    ({"workers": {"replicas": 0}, "rollout": {"policy": "least-inflight"}}, "bind groups to workers and need at least"),
    ({"workers": {"autoscale": {}}}, "autoscale needs max"),
    (
        {"workers": {"max": 2, "autoscale": {}}, "rollout": {"policy": "round-robin"}},
        "workers.autoscale conflicts with policies round-robin and least-inflight",
    ),
    ({"workers": {"parallelism": {"tensor": 4, "nodes": 3}}}, "tensor times pipeline is a multiple of nodes"),
    ({"workers": {"resources": {"limits": {"cpu": "1x"}}}}, "spec.workers.resources.limits.cpu: Invalid value"),
    ({"model": {"engineArgs": {"tensor_parallel_size": 2}}}, '"spec.model.engineArgs" must not validate the schema'),
    ({"model": {"volume": {}}}, "exactly one of pvc and image"),
    (
        {"model": {"volume": {"pvc": {"claimName": "a"}, "image": {"reference": "b"}}}},
        "exactly one of pvc and image",
    ),
    ({"model": {"cache": {}}}, "spec.model.cache.pvc: Required value"),
    ({"imagePullPolicy": "always"}, 'spec.imagePullPolicy: Unsupported value: "always"'),
    ({"store": {"url": "redis://a", "secretRef": {"name": "a", "key": "b"}}}, "only one of url and secretRef"),
    ({"store": {"url": "redis://a", "persistence": {}}}, "persistence belongs to the Redis that openseer runs"),
    (
        {"suspend": True, "store": {"persistence": {"medium": "ephemeral"}}},
        "a job with an ephemeral store cannot be suspended",
    ),
    ({"output": {"path": "a", "pvc": {"claimName": "b", "path": "c"}}}, "only one of path and pvc"),
    ({"output": {"storageClass": "a", "pvc": {"claimName": "b", "path": "c"}}}, "storageClass belongs to the volume"),
    ({"failurePolicy": {"rules": [{"action": "Ignore"}]}}, "exactly one of onExitCodes and onPodConditions"),
    (
        {"failurePolicy": {"rules": [{"action": "Retry", "onPodConditions": [{"type": "DisruptionTarget"}]}]}},
        'spec.failurePolicy.rules[0].action: Unsupported value: "Retry"',
    ),
    (
        {"failurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}}]}},
        "spec.failurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0",
    ),
]


@pytest.mark.parametrize(("patch", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_manifest_is_refused_with_the_reason(jobs: Jobs, patch: dict[str, Any], words: str) -> None:
    text = manifest("wrong", merged(MINIMAL, patch))
    assert words in jobs.refusal("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=text)


def test_a_name_too_long_for_its_pods_is_refused(jobs: Jobs) -> None:
    assert "metadata.name" in jobs.refusal("create", "--filename=-", stdin=manifest("a" * 51, MINIMAL))


FIXED: list[tuple[dict[str, Any], str]] = [
    ({"mode": "serve", "prompts": None}, "mode is fixed"),
    ({"model": {"engineArgs": {"max_model_len": 8192}}}, "model is fixed"),
    ({"model": {"volume": {"pvc": {"claimName": "models"}}}}, "model is fixed"),
    ({"prompts": {"path": "q"}}, "prompts are fixed"),
    ({"groupSize": 4}, "groupSize is fixed"),
    ({"sampling": {"seed": 1}}, "sampling is fixed"),
    ({"rollout": {"policy": "fifo"}}, "rollout.policy is fixed"),
    ({"rollout": {"probe": False}}, "rollout.probe is fixed"),
    ({"workers": {"parallelism": {"tensor": 2}}}, "workers.parallelism is fixed"),
    ({"store": {"url": "redis://other"}}, "store.url and store.secretRef are fixed"),
    ({"store": {"persistence": {"medium": "ephemeral"}}}, "store.persistence.medium is fixed"),
    ({"store": {"persistence": {"storageClass": "other"}}}, "store.persistence.storageClass is fixed"),
    ({"output": {"path": "elsewhere"}}, "output is fixed"),
]


@pytest.mark.parametrize(("patch", "words"), FIXED, ids=[words for _, words in FIXED])
def test_fields_that_results_depend_on_are_immutable(jobs: Jobs, patch: dict[str, Any], words: str) -> None:
    jobs.create("running", RUNNING)
    assert f"{words} once the job exists; make a new job for another" in jobs.refused_patch("running", patch)


@pytest.mark.parametrize(
    "patch",
    [
        {"suspend": True},
        {"image": "example.com/worker:2"},
        {"rollout": {"quantumTokens": 512}},
        {"workers": {"replicas": 3, "maxInflight": 8, "template": {"spec": {"nodeSelector": {"a": "b"}}}}},
        {"failurePolicy": {"workerRestarts": 9}},
        {"store": {"resources": {"limits": {"memory": "8Gi"}}}},
        {"store": {"fsync": "always", "template": {"spec": {"priorityClassName": "low"}}}},
        {"store": {"persistence": {"size": "8Gi"}}},
        {"ttlSecondsAfterFinished": 60},
    ],
    ids=lambda patch: ",".join(patch),
)
def test_fields_of_a_jobs_execution_are_mutable(jobs: Jobs, patch: dict[str, Any]) -> None:
    jobs.create("running", RUNNING)
    assert jobs.refused_patch("running", patch) == ""


def test_policies_that_bind_groups_to_workers_fix_their_number(jobs: Jobs) -> None:
    jobs.create("bound", BOUND)
    assert jobs.refused_patch("bound", {"suspend": True}) == ""
    assert "workers.replicas is fixed with policies" in jobs.refused_patch("bound", {"workers": {"replicas": 3}})
    assert "workers.replicas is fixed with policies" in jobs.refusal("scale", "rolloutjob/bound", "--replicas=3")


def test_with_autoscale_only_the_operator_sets_the_number_of_workers(jobs: Jobs) -> None:
    jobs.create("autoscaled", {"workers": {"replicas": 1, "max": 4, "autoscale": {"idleSeconds": 60}}})
    assert "replicas is fixed while workers.autoscale" in jobs.refusal("scale", "rolloutjob/autoscaled", "--replicas=3")
    assert "replicas is fixed while" in jobs.refused_patch("autoscaled", {"workers": {"replicas": 2}})
    assert jobs.refused_patch("autoscaled", {"workers": {"max": 8, "min": 1}}) == ""
    assert jobs.refused_patch("autoscaled", {"workers": {"autoscale": None, "replicas": 3}}) == ""
    jobs.run("scale", "rolloutjob/autoscaled", "--replicas=2")


def test_kubectl_scales_within_the_bounds_and_not_beyond(jobs: Jobs) -> None:
    jobs.create("running", RUNNING)
    jobs.run("scale", "rolloutjob/running", "--replicas=4")
    assert "replicas is at most max" in jobs.refusal("scale", "rolloutjob/running", "--replicas=5")
    assert "replicas is at least min" in jobs.refusal("scale", "rolloutjob/running", "--replicas=0")
    assert jobs.run("get", "rolloutjob", "running", "--output=jsonpath={.spec.workers.replicas}") == "4"


STATUS: dict[str, Any] = {
    "reason": "WorkersReady",
    "selector": "openseer.dev/job=running,openseer.dev/role=worker",
    "progress": {"percent": 25, "tokensPerSecond": 150, "etaSeconds": 60},
    "workers": {"desired": 3, "current": 3, "ready": 2, "summary": "2/3"},
}


@pytest.mark.usefixtures("unattended")
def test_kubectl_and_autoscalers_read_the_status(jobs: Jobs, namespace: str) -> None:
    jobs.create("running", RUNNING)
    patch = json.dumps({"status": STATUS})
    jobs.run("patch", "rolloutjob", "running", "--subresource=status", "--type=merge", "--patch", patch)
    header, row = jobs.run("get", "rj", "--output=wide").splitlines()
    titles = ("NAME", "WORKERS", "PROGRESS %", "TOKENS/S", "ETA (S)", "REASON", "MODE", "POLICY", "AGE")
    assert [title for title in titles if title not in header] == []
    assert row.split()[:-1] == ["running", "2/3", "25", "150", "60", "WorkersReady", "batch", "context-aware"]
    path = f"/apis/openseer.dev/v1alpha1/namespaces/{namespace}/rolloutjobs/running/scale"
    scale = json.loads(jobs.run("get", "--raw", path))
    assert scale["spec"]["replicas"] == 2
    assert scale["status"] == {"replicas": 3, "selector": STATUS["selector"]}


@pytest.mark.usefixtures("unattended")
def test_a_spec_change_leaves_the_status_and_a_status_change_the_spec(jobs: Jobs) -> None:
    jobs.create("running", RUNNING)
    both = json.dumps({"spec": {"suspend": True}, "status": {"reason": "Mine"}})
    jobs.run("patch", "rolloutjob", "running", "--type=merge", "--patch", both)
    job = json.loads(jobs.run("get", "rolloutjob", "running", "--output=json"))
    assert (job["spec"]["suspend"], job.get("status", {}).get("reason")) == (True, None)
    jobs.run(
        "patch",
        "rolloutjob",
        "running",
        "--subresource=status",
        "--type=merge",
        "--patch",
        both.replace("true", "false"),
    )
    job = json.loads(jobs.run("get", "rolloutjob", "running", "--output=json"))
    assert (job["spec"]["suspend"], job["status"]["reason"]) == (True, "Mine")


def test_kubectl_explains_every_field_of_the_spec(jobs: Jobs) -> None:
    printed = jobs.run("explain", "rolloutjob.spec", "--recursive")
    crd = yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert [name for name in spec["properties"] if f"{name}\t<" not in printed] == []
    explained = jobs.run("explain", "rolloutjob.spec.workers.maxUnavailable")
    assert "Limit of workers that are down at the same time" in explained
