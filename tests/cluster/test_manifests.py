"""An API server accepts every object that the operator creates, in a namespace that admits restricted pods only.

kubeconform then finds unknown fields, which a server drops silently.
"""

import json
import subprocess
from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_operator.objects.managed_redis import store_secret, store_stateful_set
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.shared import shared_objects
from openseer_operator.settings import OperatorSettings
from tests.charts.rendering import CHART, HELM, ROOT, VARIANTS, program, template
from tests.cluster.support.kube import WAIT_SECONDS, Kube
from tests.cluster.support.schemas import PATTERN, write_schemas
from tests.repository import CLUSTER_EXAMPLES

pytestmark = pytest.mark.cluster

UID = "11111111-2222-3333-4444-555555555555"
SETTINGS = OperatorSettings("openseer", "openseer-worker:1", "openseer-operator:1", pull_policy="IfNotPresent")
AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]
    }
}
JOBS: dict[str, dict[str, Any]] = {
    "a" * 50: {},
    "gang": {
        "model": {
            "path": "/models/m",
            "volume": {"image": {"reference": "registry/model:1", "pullPolicy": "IfNotPresent"}},
            "cache": {"pvc": {"claimName": "cache"}},
            "hubTokenSecret": {"name": "hub", "key": "token"},
            "offline": True,
        },
        "prompts": {"configMap": {"name": "questions", "key": "q.jsonl"}},
        "workers": {
            "parallelism": {"tensor": 2, "nodes": 2},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "template": {
                "metadata": {"labels": {"team": "a"}},
                "spec": {
                    "affinity": {"nodeAffinity": AFFINITY},
                    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
                    "containers": [{"name": "worker", "env": [{"name": "NCCL_DEBUG", "value": "WARN"}]}],
                },
            },
        },
        "imagePullSecrets": [{"name": "registry"}],
        "output": {"pvc": {"claimName": "results", "path": "today"}},
        "store": {"persistence": {"medium": "ephemeral", "size": "2Gi"}, "fsync": "always"},
    },
    "claims": {
        "model": {"path": "/models/m", "volume": {"pvc": {"claimName": "weights"}}},
        "prompts": {"pvc": {"claimName": "data", "path": "q.jsonl"}},
        "output": {"size": "5Gi", "storageClass": "fast"},
        "store": {"persistence": {"size": "9Gi", "storageClass": "fast"}},
    },
    "own-store": {"store": {"url": "redis://redis:6379/0"}},
    "rows": {
        "mode": "serve",
        "prompts": None,
        "routing": {"capture": {"pvc": {"claimName": "fast", "path": "rows"}}},
    },
}


def document_of(name: str, namespace: str = "default") -> dict[str, Any]:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, **JOBS[name]}
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {part: value for part, value in spec.items() if value is not None},
    }


def objects_of(job: RolloutJob) -> Iterator[dict[str, Any]]:
    shared = shared_objects(job, UID, SETTINGS, job.spec.workers.replicas, secret="s")
    yield from shared.values()
    if "rows" in shared:
        yield pod_of(shared["rows"])
    for rank in range(job.spec.workers.parallelism.nodes):
        yield worker_pod(
            job, UID, SETTINGS, "openseer-worker:1", index=0, rank=rank, attempt=0, secret="s", avoid=("n1", "n2")
        )
    if job.spec.mode == "batch":
        yield driver_pod(job, UID, SETTINGS, "openseer-worker:1", attempt=0, secret="s")
    if job.spec.store.url is None:
        yield store_secret(job, UID, "s", "sesame")
        redis = store_stateful_set(job, UID, SETTINGS, 1, secret="s")
        yield redis
        yield pod_of(redis)


def pod_of(made: dict[str, Any]) -> dict[str, Any]:
    """The pod of a StatefulSet or Deployment: Pod Security refuses pods, not their controllers."""
    template, head = made["spec"]["template"], made["metadata"]
    claims: list[dict[str, Any]] = made["spec"].get("volumeClaimTemplates", [])
    claimed: list[dict[str, Any]] = [{"name": entry["metadata"]["name"], "emptyDir": {}} for entry in claims]
    spec = {**template["spec"], "volumes": [*template["spec"]["volumes"], *claimed]}
    name = {"name": f"{head['name']}-0", "namespace": head["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], **name}, "spec": spec}


@pytest.mark.parametrize("name", JOBS, ids=lambda name: name[:10])
def test_every_object_of_a_job_is_valid_and_admitted(kube: Kube, namespace: str, name: str) -> None:
    job = parse_job(document_of(name, namespace), "job.yaml")
    objects = list(objects_of(job))
    # Pods are admitted only with an existing account, and their owner does not exist; the rest is a dry run.
    account = shared_objects(job, UID, SETTINGS, 1, secret="s")["serviceAccount"]
    account["metadata"].pop("ownerReferences")
    kube.apply([account])
    refusal = tried(kube, "\n---\n".join(json.dumps(entry) for entry in objects))
    assert len(refusal.splitlines()) == len(objects)


@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "in one namespace"])
def test_everything_that_the_chart_renders_is_valid(kube: Kube, namespace: str, everywhere: bool) -> None:
    watched = json.dumps([] if everywhere else [namespace])
    text = kube.run(
        *("helm", "template", "rel", str(CHART), "--namespace", namespace, "--kube-version", "1.36.3"),
        *("--set-json", f"watchNamespaces={watched}", "--set", "nodeRepair.condition=GpuReady"),
    )
    refusal = tried(kube, text)
    assert len(refusal.splitlines()) == text.count("# Source: ")
    assert "deployment.apps/rel-openseer serverside-applied (server dry run)" in refusal


def tried(kube: Kube, text: str) -> str:
    """Applies all objects as a dry run and returns the API server's answer. Raises KubeError."""
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--field-manager", "openseer-operator")
    return kube.kubectl(*apply, "-f", "-", text=text)


# ---- unknown fields

KUBECONFORM = program("kubeconform")
EXAMPLES = [path.relative_to(ROOT) for path in CLUSTER_EXAMPLES]


@pytest.fixture(scope="session")
def schemas(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Schemas of the server's own kinds, and of RolloutJob in this tree."""
    if KUBECONFORM is None:
        pytest.skip("no kubeconform: neither on the path nor built by cluster/build.sh")
    folder = tmp_path_factory.mktemp("schemas")
    crd = yaml.safe_load((ROOT / "crds" / "rolloutjobs.yaml").read_text(encoding="utf-8"))
    write_schemas(folder, json.loads(kube.kubectl("get", "--raw", "/openapi/v2")), [crd])
    return folder


def conforming(schemas: Path, text: str) -> subprocess.CompletedProcess[str]:
    assert KUBECONFORM is not None
    command = [KUBECONFORM, "-strict", "-summary", "-schema-location", f"{schemas}/{PATTERN}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


def assert_conforms(schemas: Path, objects: Iterable[dict[str, Any]]) -> None:
    given = list(objects)
    done = conforming(schemas, yaml.safe_dump_all(given))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Summary: {len(given)} resource" in done.stdout
    assert f"Valid: {len(given)}, " in done.stdout


@pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_has_no_unknown_field(schemas: Path, variant: str) -> None:
    rendered = template(VARIANTS[variant])
    assert rendered.returncode == 0, rendered.stderr
    assert_conforms(schemas, filter(None, yaml.safe_load_all(rendered.stdout)))


@pytest.mark.parametrize("name", JOBS, ids=lambda name: name[:10])
def test_the_objects_of_a_job_have_no_unknown_field(schemas: Path, name: str) -> None:
    document = document_of(name)
    assert_conforms(schemas, [document, *objects_of(parse_job(document, "job.yaml"))])


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_an_example_and_its_objects_have_no_unknown_field(schemas: Path, path: Path) -> None:
    documents = list(yaml.safe_load_all((ROOT / path).read_text(encoding="utf-8")))
    (job,) = (entry for entry in documents if entry["kind"] == "RolloutJob")
    assert_conforms(schemas, [*documents, *objects_of(parse_job(job, str(path)))])


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("Deployment", ("spec", "template", "spec", "containers", 0, "securityContext")),
        ("NetworkPolicy", ("spec",)),
        ("CustomResourceDefinition", ("spec", "versions", 0, "schema", "openAPIV3Schema")),
        ("ServiceMonitor", ("spec", "endpoints", 0)),
        ("RolloutJob", ("spec", "prompts")),
        ("RolloutJob", ("metadata",)),
        ("Pod", ("spec", "volumes", 0, "configMap")),
        ("StatefulSet", ("spec", "volumeClaimTemplates", 0, "spec")),
    ],
)
def test_an_unknown_field_is_found_at_any_depth(schemas: Path, kind: str, place: tuple[str | int, ...]) -> None:
    document = document_of("claims")
    chart = filter(None, yaml.safe_load_all(template(VARIANTS["everything on"]).stdout))
    objects = [document, *objects_of(parse_job(document, "job.yaml")), *chart]
    broken = deepcopy(next(entry for entry in objects if entry["kind"] == kind))
    part: Any = broken
    for step in place:
        part = part[step]
    part["noSuchField"] = 1
    done = conforming(schemas, json.dumps(broken))
    assert done.returncode != 0
    assert "noSuchField" in done.stdout
