"""The objects that the operator writes: a change of any of them would replace the pods of running jobs."""

from dataclasses import replace
from typing import Any

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.store_url import store_name
from openseer_core.plan.observation import RELEASED, Ending, Failure, JobOutcome, Memory, Observation, SickNode
from openseer_core.plan.plan import Plan
from openseer_core.plan.scaling import template_hash
from openseer_core.queue.messages import BatchProgress
from openseer_operator import settings
from openseer_operator.objects import names
from openseer_operator.objects.managed_redis import store_secret, store_stateful_set
from openseer_operator.objects.pods import driver_pod, worker_pod
from openseer_operator.objects.shared import shared_objects
from openseer_operator.objects.status import StatusDetails, memory_of, refused_status, status_of
from openseer_operator.settings import OperatorSettings
from tests.contract.forms.recorded import compare
from tests.contract.forms.scanning import texts
from tests.core.plan.cluster_model import make_job

UID = "11111111-2222-3333-4444-555555555555"
NOW = 1_790_000_000.0
SETTINGS = OperatorSettings(namespace="openseer", worker_image="openseer-worker:1", store_image="openseer-operator:1")
WORDS = {
    "app": names.APP,
    "manager": names.MANAGER,
    "name label": names.NAME_LABEL,
    "managed by label": names.MANAGED_BY_LABEL,
    "prefix": names.PREFIX,
    "job label": names.JOB_LABEL,
    "role label": names.ROLE_LABEL,
    "worker label": names.WORKER_LABEL,
    "rank label": names.RANK_LABEL,
    "template annotation": names.TEMPLATE_ANNOTATION,
    "attempt annotation": names.ATTEMPT_ANNOTATION,
    "replicas annotation": names.REPLICAS_ANNOTATION,
    "safe to evict annotation": names.SAFE_TO_EVICT_ANNOTATION,
    "do not disrupt annotation": names.DO_NOT_DISRUPT_ANNOTATION,
    "deletion cost annotation": names.DELETION_COST_ANNOTATION,
    "busy cost": names.BUSY_COST,
    "do not disrupt": names.DO_NOT_DISRUPT,
    "managed selector": names.MANAGED_SELECTOR,
    "field manager": settings.FIELD_MANAGER,
    "finalizer": settings.FINALIZER,
}


def job(**spec: Any) -> RolloutJob:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "arithmetic", "namespace": "lab", "labels": {"team": "a"}},
        "spec": {"model": {"path": "models/tiny"}, "prompts": {"path": "prompts.jsonl"}, **spec},
    }
    return parse_job(document, "job.yaml")


def objects(rollout_job: RolloutJob, rank: int = 0) -> dict[str, Any]:
    """All objects that the operator makes for a job."""
    found = {
        "worker": worker_pod(
            rollout_job,
            UID,
            SETTINGS,
            "openseer-worker:1",
            index=3,
            rank=rank,
            attempt=2,
            secret=store_name(rollout_job),
            avoid=("node-7",),
        ),
        "template hash": template_hash(rollout_job),
        "shared": shared_objects(rollout_job, UID, SETTINGS, 2, secret=store_name(rollout_job)),
        "store": store_stateful_set(rollout_job, UID, SETTINGS, 1, secret=store_name(rollout_job)),
        "store secret": store_secret(rollout_job, UID, store_name(rollout_job), "word"),
    }
    if rollout_job.spec.mode == "batch":
        found["driver"] = driver_pod(
            rollout_job, UID, SETTINGS, "openseer-worker:1", attempt=1, secret=store_name(rollout_job)
        )
    return found


def test_labels_annotations_and_finalizers_are_the_same() -> None:
    compare(
        "cluster_words",
        WORDS | {"stamp": {"busy": names.stamp_annotations(True), "idle": names.stamp_annotations(False)}},
    )


def test_objects_of_a_plain_job_are_the_same() -> None:
    compare("objects_plain", objects(job()))


def test_objects_of_a_serving_gang_are_the_same() -> None:
    limits = {"nvidia.com/gpu": "4"}
    workers = {"replicas": 4, "parallelism": {"tensor": 8, "nodes": 2}, "resources": {"limits": limits}}
    rollout_job = job(mode="serve", prompts=None, workers=workers, store={"persistence": {"medium": "ephemeral"}})
    compare("objects_gang", objects(rollout_job, rank=1))


def status(memory: Memory, **changes: Any) -> dict[str, Any]:
    seen = replace(Observation(now=NOW, job=make_job(), memory=memory), **changes)
    facts = StatusDetails(generation=3, image="worker:1", tokens_per_second=123.4)
    return status_of(seen, Plan((), memory), facts, {})


FULL = Memory(
    started_at=NOW - 100,
    desired=3,
    scaled_at=NOW - 50,
    scale_reason="ScaledUp",
    failures={"worker-1": Failure(2, 3, 1, "exit code 7", NOW - 20, NOW - 90)},
    sick_nodes=(SickNode("node-7", "worker-1", "gpu0: Xid 48", NOW - 30),),
    progress=BatchProgress(
        groups=4, requests=8, ok=3, infra_failed=1, tokens=99, ok_tokens=90, closed_tokens=99, sealed=True
    ),
)


def test_the_status_of_a_job_keeps_its_form() -> None:
    ends = [Ending(JobOutcome.COMPLETE, "AllReported", "all", NOW), Ending(JobOutcome.FAILED, "StoreLost", "gone", NOW)]
    found = {
        "runs": status(FULL),
        "complete": status(replace(FULL, ending=ends[0])),
        "failed": status(replace(FULL, ending=ends[1])),
        "suspended": status(FULL, job=make_job(suspend=True)),
        "released": status(replace(FULL, desired=0, scale_reason=RELEASED)),
        "refused": refused_status("spec.model: missing", 4, status(FULL), NOW),
    }
    compare("job_status", found)
    # The status has no token sums: the estimate of the remaining time reads them from the store.
    assert memory_of(found["runs"]) == replace(FULL, progress=replace(FULL.progress, ok_tokens=0, closed_tokens=0))
    assert memory_of(found["failed"]).ending == ends[1]


def test_reasons_and_kinds_in_a_cluster_are_the_same() -> None:
    compare("camel_case_words", texts(r"[A-Z][a-z]+([A-Z][A-Za-z]*)*", "core/openseer_core", "operator"))
