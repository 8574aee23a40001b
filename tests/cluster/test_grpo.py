"""The example training in pods: the example's manifest, through the gateway, with its own token."""

import json
from typing import Any

import pytest
import yaml

from tests.cluster.support.kube import CPU_IMAGE, ROOT, Kube, cluster_sh
from tests.cluster.support.serving import ServingJob

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(6000)]

NODE = "n0"
"""The image is large: one node has it."""
IMPORT_SECONDS = 2400
TRAIN_SECONDS = 900
START_SECONDS = 900
"""Beside engines of other tests an import of vLLM in a pod takes minutes."""
SMALL = "--iterations 2 --groups 2 --group-size 4 --spare-groups 1 --eval-every 2 --eval-prompts 8"


def manifests() -> list[dict[str, Any]]:
    """The example's manifests with the image of these tests and a short training."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "examples/grpo/cluster.yaml").read_text()))
    for document in documents:
        if document["kind"] == "RolloutJob":
            document["spec"]["image"] = CPU_IMAGE
            document["spec"]["store"] = {"persistence": {"medium": "ephemeral"}}
            document["spec"]["workers"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": NODE}
        elif document["kind"] == "Job":
            pod = document["spec"]["template"]["spec"]
            pod["nodeSelector"] = {"kubernetes.io/hostname": NODE}
            pod["containers"][0]["image"] = CPU_IMAGE
            # Its files are deleted with the pod, so the script prints them for this test.
            train = " ".join(["python", "examples/grpo/train.py", *pod["containers"][0].pop("args"), SMALL])
            pod["containers"][0]["command"] = ["sh", "-c", f"{train} && echo METRICS && cat /tmp/grpo/metrics.jsonl"]
    return documents


def test_two_iterations_in_pods_through_the_gateway(kube: Kube, namespace: str, operator: str) -> None:
    if not kube.is_ours:
        pytest.skip("the image of a user's cluster is not chosen here")
    cluster_sh("load", "cpu", seconds=IMPORT_SECONDS)
    job = ServingJob(kube, namespace, name="grpo")
    kube.apply(list[str | dict[str, Any]](manifests()), namespace)
    job.until(lambda: job.ready() == 1, "the worker is ready", START_SECONDS)
    done = ("--for=condition=Complete", "job/grpo-trainer", f"--timeout={TRAIN_SECONDS}s")
    try:
        job.kubectl("wait", *done, seconds=TRAIN_SECONDS + 30)
    finally:
        printed = job.kubectl("logs", "job/grpo-trainer", "--tail=200")
    rows = [json.loads(line) for line in printed.split("METRICS\n")[1].splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert all(row["canary_difference"] < 1e-3 for row in rows)
    assert all(0 < row["logprob_difference_max"] < 1e-3 for row in rows[:2])
    assert rows[2]["held_out_prompts"] == 8
