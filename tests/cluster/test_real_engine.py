"""The README's example on real vLLM in pods, with a pool in Mooncake's store and a lost node, gives the same results as
on one machine."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.support.chart import install
from tests.cluster.support.kube import ROOT, Kube, cluster_sh
from tests.cluster.support.workload import Workload, merged
from tests.e2e.workbench import Workbench

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(6000)]

EXAMPLE = ROOT / "examples/arithmetic.yaml"
NODE = "n0"
"""Holds all but one of the two workers. The image is large: these two nodes have it."""
LOST = "n1"
IMPORT_SECONDS = 2400
"""The image is built and put into the nodes beforehand (`make test` does); this is for whoever did not."""
START_SECONDS = 900
COMPLETE_SECONDS = 900
"""Far more than either takes alone; beside engines of other tests an import of vLLM in a pod takes minutes."""
BEGIN = "openseer-test/begin"
"""A label of the node without which the driver does not start: on a busy machine the first worker would do all the work
before the second one has its engine."""
SLOTS, LOST_AFTER = 4, 10
"""Slots of a worker, and completed responses, of 80, after which the node is lost. All running responses are then
probes, of different prompts: the other worker has none of their contexts in its prefix cache, and most are longer than
the pool's lower limit (64 tokens)."""
GREEDY = {
    "model": {"dtype": "float32"},
    "sampling": {"temperature": 0.0},
    "groupSize": 2,
    "workers": {"maxInflight": SLOTS},
}
"""The same response wherever it is generated; the siblings of a group are equal."""


def placed(**terms: Any) -> dict[str, Any]:
    """A part of the spec whose pod template sets the placement."""
    return {"template": {"spec": terms}}


def in_the_cluster(example: dict[str, Any]) -> dict[str, Any]:
    """The example with a pool, its workers on two nodes and all other pods on the first."""
    workers = {
        "labelSelector": {"matchLabels": {"openseer.dev/role": "worker"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [workers]}}
    here = placed(nodeSelector={"kubernetes.io/hostname": NODE})
    later = placed(nodeSelector={"kubernetes.io/hostname": NODE, BEGIN: "true"})
    spec = {
        "kvPool": {"backend": "mooncake", "maxGigabytes": 1, **here},
        "workers": placed(affinity=apart),
        "driver": later,
        "store": here,
    }
    return merged(example, {"spec": spec})


def responses(lines: str) -> dict[tuple[str, int], tuple[str, list[int]]]:
    """Status and tokens of each response, from the text of a results file."""
    found = [json.loads(line) for line in lines.splitlines()]
    return {(line["group"], line["index"]): (line["status"], line["token_ids"]) for line in found}


def pool_is_ready(job: Workload) -> bool:
    pods = json.loads(job.kubectl("get", "pods", "--selector=openseer.dev/role=kv-pool", "--output=json"))["items"]
    conditions = [condition for pod in pods for condition in pod["status"].get("conditions", [])]
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def complete_without_a_node(kube: Kube, job: Workload, manifest: Path, nodes: set[str]) -> dict[str, str]:
    """Runs the job on two of the `nodes`, disconnects one once both workers have work, and returns the run's files."""

    def is_over() -> bool:
        return job.holds("Complete") or job.holds("Failed")

    try:
        install(kube, "--set", "workerImage.tag=cpu")
        for node in nodes - {NODE, LOST}:
            kube.kubectl("cordon", node)
        job.kubectl("apply", "--filename", str(manifest))
        job.until(lambda: job.ready() == 2, "both workers are ready", START_SECONDS)
        job.until(lambda: pool_is_ready(job), "the KV pool is ready", START_SECONDS)
        kube.kubectl("label", "node", NODE, f"{BEGIN}=true", "--overwrite")
        job.until(lambda: job.done() >= LOST_AFTER, "some responses are complete", START_SECONDS)
        cluster_sh("cut", LOST)
        job.until(is_over, "complete", COMPLETE_SECONDS)
        assert job.holds("Complete"), job.story()
        assert "100" in job.kubectl("get", "rj").splitlines()[1].split()
        return job.read_output()
    finally:
        cluster_sh("join", LOST)
        kube.kubectl("label", "node", NODE, f"{BEGIN}-")
        for node in nodes - {NODE, LOST}:
            kube.kubectl("uncordon", node)
        install(kube)


def test_a_cluster_that_loses_a_node_gives_the_same_results_as_one_machine(
    kube: Kube, namespace: str, operator: str, tmp_path: Path
) -> None:
    if not kube.is_ours:
        pytest.skip("the image of a user's cluster is not chosen here")
    nodes = {node["metadata"]["name"] for node in kube.get_list("nodes")}
    if LOST not in nodes:
        pytest.skip("the cluster has one node, which cannot be lost")
    cluster_sh("load", "cpu", seconds=IMPORT_SECONDS)
    example = merged(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), {"spec": GREEDY})
    manifest = tmp_path / "example.yaml"
    manifest.write_text(yaml.safe_dump(in_the_cluster(example)))
    job = Workload(kube, namespace, name=example["metadata"]["name"])
    files = complete_without_a_node(kube, job, manifest, nodes)
    assert json.loads(files["audit.json"])["ok"] is True
    report = json.loads(files["report.json"])
    assert report["reaps"] > 0, "no request was lost with the node"
    assert report["contexts"]["fetched"] > 0, json.dumps(report["contexts"])

    bench = Workbench(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(example))
    ended = bench.call("run", "local.yaml", "--output", "local", timeout=COMPLETE_SECONDS)
    assert ended.returncode == 0, ended.stdout
    local = responses((tmp_path / "local/results.jsonl").read_text())
    assert {status for status, _ in local.values()} == {"ok"}
    assert responses(files["results.jsonl"]) == local
