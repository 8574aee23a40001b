"""The proof: the example of the README, on real vLLM in real pods and with Mooncake's store in another, gives what it
gives on one machine."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.support.chart import install
from tests.cluster.support.kube import ROOT, Kube, cluster_sh
from tests.cluster.support.workload import Workload
from tests.e2e.workbench import Workbench

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(6000)]

EXAMPLE = ROOT / "examples/arithmetic.yaml"
NODE = "n0"
"""One node is enough: the image is large."""
IMPORT_SECONDS = 2400
"""The image is built and put into the node beforehand (`make test` does); this is for whoever did not."""
START_SECONDS = 900
COMPLETE_SECONDS = 900
"""Far more than either takes alone; beside engines of other tests an import of vLLM in a pod takes minutes."""
MOST_APART = 0.18
"""Share of right answers, cluster against local: at least four and a half standard deviations of a difference over 320
responses each, whatever the share; six of that which the example has."""


def share_right(lines: list[dict[str, Any]]) -> float:
    prompts = {
        line["id"]: line["messages"][0]["content"]
        for line in map(json.loads, (ROOT / "examples/tiny-model/prompts.jsonl").read_text().splitlines())
    }
    check = runpy.run_path(str(ROOT / "examples/tiny-model/traces.py"))["check"]  # the example's own judge
    return sum(check(prompts[line["group"]], line["text"]) for line in lines) / len(lines)


def test_the_example_gives_in_a_cluster_what_it_gives_locally(
    kube: Kube, namespace: str, operator: str, tmp_path: Path
) -> None:
    if not kube.is_ours:
        pytest.skip("the image of a user's cluster is not ours to choose")
    cluster_sh("load", "cpu", seconds=IMPORT_SECONDS)
    others = [node["metadata"]["name"] for node in kube.get_list("nodes") if node["metadata"]["name"] != NODE]
    example = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    example["spec"]["kvPool"] = {"backend": "mooncake", "maxGigabytes": 1}

    def is_over() -> bool:
        return job.holds("Complete") or job.holds("Failed")

    manifest = tmp_path / "example.yaml"
    manifest.write_text(yaml.safe_dump(example))
    job = Workload(kube, namespace, name=example["metadata"]["name"])
    try:
        install(kube, "--set", "workerImage.tag=cpu")
        for node in others:
            kube.kubectl("cordon", node)
        job.kubectl("apply", "--filename", str(manifest))
        # Not both at once: on a busy machine the first may do all the work before the second has its engine.
        job.until(lambda: job.ready() > 0 or is_over(), "a worker is ready", START_SECONDS)
        job.until(is_over, "complete", COMPLETE_SECONDS)
        assert job.holds("Complete"), job.story()
        assert "100" in job.kubectl("get", "rj").splitlines()[1].split()
        files = job.read_output()
    finally:
        for node in others:
            kube.kubectl("uncordon", node)
        install(kube)
    assert json.loads(files["audit.json"])["ok"] is True
    contexts = json.loads(files["report.json"])["contexts"]
    assert contexts["saved_bytes"] > 0, contexts
    lines = [json.loads(line) for line in files["results.jsonl"].splitlines()]

    bench = Workbench(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = bench.call("run", str(EXAMPLE), "--output", "local", timeout=COMPLETE_SECONDS)
    assert done.returncode == 0, done.stdout
    local = [json.loads(line) for line in (tmp_path / "local/results.jsonl").read_text().splitlines()]
    assert {(line["group"], line["index"]) for line in lines} == {(line["group"], line["index"]) for line in local}
    assert {line["status"] for line in lines} == {"ok"}
    assert abs(share_right(lines) - share_right(local)) < MOST_APART
