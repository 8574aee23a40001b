"""Names are predictable and within Kubernetes' length limits."""

from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_operator.objects.names import selector_text, stamp_annotations, with_template_hash, worker_pod_name


def job(name: str = "arithmetic", nodes: int = 1) -> RolloutJob:
    document: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name},
        "spec": {
            "mode": "serve",
            "model": {"path": "m"},
            "workers": {"parallelism": {"tensor": nodes, "nodes": nodes}},
        },
    }
    return parse_job(document, "job.yaml")


def test_the_name_of_a_workers_pod_has_its_number_and_rank() -> None:
    assert worker_pod_name(job(), 3, 0) == "arithmetic-worker-3"
    assert worker_pod_name(job(nodes=2), 3, 1) == "arithmetic-worker-3-1"


def test_a_pod_name_invalid_as_host_name_is_refused_with_the_remedy() -> None:
    assert len(worker_pod_name(job("j" * 50), 99999, 0)) == 63
    with pytest.raises(InputError, match=r"metadata\.name: .* 64 characters, allowed: 63; make a job with a shorter"):
        worker_pod_name(job("j" * 50), 100000, 0)


def test_the_workers_of_a_job_are_selected_by_its_name_and_their_role() -> None:
    assert selector_text(job(), "worker") == "openseer.dev/job=arithmetic,openseer.dev/role=worker"


def test_a_busy_workers_stamp_keeps_its_node_and_an_idle_ones_frees_it() -> None:
    busy, idle = stamp_annotations(busy=True), stamp_annotations(busy=False)
    assert (busy["cluster-autoscaler.kubernetes.io/safe-to-evict"], busy["karpenter.sh/do-not-disrupt"]) == (
        "false",
        "true",
    )
    assert (idle["cluster-autoscaler.kubernetes.io/safe-to-evict"], idle["karpenter.sh/do-not-disrupt"]) == (
        "true",
        None,
    )
    assert busy.keys() == idle.keys()


def test_equal_objects_have_equal_hashes_and_others_have_not() -> None:
    def seal(value: str) -> str:
        manifest = with_template_hash({"metadata": {"annotations": {}}, "data": {"key": value}})
        return manifest["metadata"]["annotations"]["openseer.dev/template"]

    assert seal("a") == seal("a") != seal("b")
