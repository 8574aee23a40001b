"""The status: the operator's memory and the fields for users."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.plan.backlog import Backlog, ScalingState
from openseer_core.plan.failures import LONGEST_REASON, MOST_FAILED_MEMBERS, update_memory
from openseer_core.plan.observation import (
    Ending,
    Failure,
    GpuSeconds,
    JobOutcome,
    Memory,
    Observation,
    Pod,
    PodPhase,
    SickNode,
    StoreProblem,
    TemplateAnswer,
    TemplateVerdict,
)
from openseer_core.plan.plan import Plan, plan
from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.store_memory import StoreMemory
from openseer_operator.objects.conditions import KINDS
from openseer_operator.objects.status import StatusDetails, is_urgent, memory_of, refused_status, status_of
from tests.core.plan.cluster_model import Cluster, make_job, serving
from tests.repository import ROOT

FACTS = StatusDetails(generation=3, image="worker:1", tokens_per_second=123.4)
CRD = yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
STATUS_SCHEMA = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
NOW = 1_790_000_000.0


def observe(memory: Memory, **changes: Any) -> Observation:
    return replace(Observation(now=NOW, job=make_job(), memory=memory), **changes)


def status_after(memory: Memory, previous: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return status_of(observe(memory, **changes), Plan((), memory), FACTS, previous or {})


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {condition["type"]: (condition["status"], condition["reason"]) for condition in status["conditions"]}


WHOLE_SECONDS = st.integers(1, 2_000_000_000).map(float)
WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
MEMORIES = st.builds(
    Memory,
    started_at=st.none() | WHOLE_SECONDS,
    suspended=st.just(False),
    ending=st.none() | st.builds(Ending, st.sampled_from(JobOutcome), WORDS, WORDS, WHOLE_SECONDS),
    desired=st.integers(0, 100),
    scaled_at=st.none() | WHOLE_SECONDS,
    scale_reason=WORDS,
    failures=st.dictionaries(
        st.sampled_from(["driver", "worker-0", "worker-17"]),
        st.builds(
            Failure, st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), WORDS, WHOLE_SECONDS, WHOLE_SECONDS
        ),
    ),
    sick_nodes=st.lists(
        st.builds(SickNode, WORDS, WORDS, WORDS, WHOLE_SECONDS, st.none() | WHOLE_SECONDS), max_size=3
    ).map(tuple),
    progress=st.builds(
        BatchProgress,
        groups=st.integers(0, 10**6),
        requests=st.integers(0, 10**6),
        ok=st.integers(0, 10**6),
        infra_failed=st.integers(0, 10**6),
        tokens=st.integers(0, 10**12),
        sealed=st.booleans(),
    ),
    revived_by=WORDS | st.just(""),
    backlog=st.builds(
        Backlog, *[st.integers(0, 10**9)] * 2, *[st.integers(0, 9999).map(float)] * 3, st.integers(0, 99)
    ),
    scaling=st.builds(ScalingState, st.none() | WHOLE_SECONDS, st.none() | WHOLE_SECONDS, st.integers(0, 99)),
    gpu_seconds=st.builds(GpuSeconds, st.integers(0, 10**9), st.integers(0, 10**9)),
)


@given(memory=MEMORIES)
def test_the_memory_survives_a_round_trip_through_the_status(memory: Memory) -> None:
    assert memory_of(status_after(memory)) == memory


@given(memory=MEMORIES)
def test_the_status_matches_the_schema_of_the_crd(memory: Memory) -> None:
    problems = list(misfits(status_after(memory), STATUS_SCHEMA, "status"))
    assert problems == []


@pytest.mark.parametrize("pods", [(), (Pod("j-worker-0", "u", 0, ready=True, phase=PodPhase.RUNNING),)])
def test_an_unreadable_store_is_reported_with_the_remedy(pods: tuple[Pod, ...]) -> None:
    problem = StoreProblem("StoreSecretForbidden", "Secret mine …: kubectl create role …")
    status = status_after(Memory(started_at=NOW, desired=1), pods=pods, store_problem=problem)
    assert conditions(status)["Available"] == conditions(status)["Ready"] == ("False", "StoreSecretForbidden")
    assert conditions(status)["Progressing"] == ("True", "WaitingForStore")
    assert status["reason"] == "StoreSecretForbidden"
    assert {entry["message"] for entry in status["conditions"] if entry["type"] == "Available"} == {problem.message}


SCALARS: Mapping[type, tuple[str, ...]] = {
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    str: ("string",),
}


def misfits(value: object, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    """Fields that a structural schema would prune, and values of another type."""
    match value:
        case dict():
            known = schema.get("properties", {})
            for name, inner in cast("dict[str, object]", value).items():
                if name not in known:
                    yield f"{place}.{name} is not in the schema"
                else:
                    yield from misfits(inner, known[name], f"{place}.{name}")
            yield from (f"{place}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        case list():
            for entry in cast("list[object]", value):
                yield from misfits(entry, schema["items"], f"{place}[]")
        case _:
            yield from () if schema["type"] in SCALARS[type(value)] else (f"{place} is {schema['type']}",)


def test_all_conditions_exist_after_the_first_step() -> None:
    found = conditions(status_after(Memory()))
    assert list(found) == [
        *("Suspended", "TemplateInvalid", "NameTaken", "PodsCreated", "VolumeResized", "PodsScheduled", "Available"),
        *("Progressing", "Draining", "Complete", "Failed", "Stalled", "Ready"),
    ]
    assert found["PodsScheduled"][0] == "Unknown"


def test_a_transition_time_moves_only_when_the_status_flips() -> None:
    first = status_after(Memory())
    later = status_after(Memory(), first, now=NOW + 60)
    assert later["conditions"] == first["conditions"]
    suspended = status_after(Memory(), later, now=NOW + 120, job=make_job(suspend=True))
    moved = {
        new["type"]
        for old, new in zip(later["conditions"], suspended["conditions"], strict=True)
        if old["lastTransitionTime"] != new["lastTransitionTime"]
    }
    assert moved == {"Suspended", "Progressing", "Ready"}


def test_a_job_passes_from_starting_to_running_to_complete() -> None:
    cluster = Cluster(make_job())
    reasons: list[str] = []

    def reconciled() -> None:
        seen = cluster.observe()
        status = status_of(seen, plan(seen), FACTS, {})
        if not reasons or reasons[-1] != status["reason"]:
            reasons.append(status["reason"])
        cluster.step()
        cluster.tick()

    reconciled()
    reconciled()
    reconciled()
    cluster.end("j-driver", 0)
    reconciled()
    assert reasons == ["NoWorkerReady", "Running", "Complete"]


def test_a_serving_job_reports_released_gpus_and_has_no_estimated_end() -> None:
    cluster = Cluster(serving(make_job()), progress=BatchProgress(groups=1, requests=8, ok=4))

    def reconciled() -> dict[str, Any]:
        for _ in range(2):
            cluster.step()
            cluster.tick()
        seen = cluster.observe()
        return status_of(seen, plan(seen), FACTS, {})

    running = reconciled()
    assert running["reason"] == "Running"
    assert running["progress"]["percent"] == 50
    assert "etaSeconds" not in running["progress"]
    cluster.released = True
    released = reconciled()
    assert (released["reason"], released["workers"]["summary"]) == ("Released", "0/0")
    assert conditions(released)["Ready"] == ("True", "Released")
    assert conditions(released)["Available"] == ("False", "Released")
    assert conditions(released)["Progressing"] == ("False", "Released")
    cluster.released = False
    assert reconciled()["reason"] == "Running"


def test_unschedulable_pods_are_a_condition_and_not_a_failure() -> None:
    cluster = Cluster(make_job())
    cluster.step()
    cluster.step()
    pod = cluster.pods["j-worker-1"]
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu"
    cluster.pods["j-worker-1"] = replace(pod, unschedulable=True, problem=words)
    cluster.tick()
    seen = cluster.observe()
    status = status_of(seen, plan(seen), FACTS, {})
    found = {condition["type"]: condition for condition in status["conditions"]}
    assert found["PodsScheduled"]["status"] == "False"
    assert words in found["PodsScheduled"]["message"]
    assert found["Available"]["status"] == "True"
    assert status["workers"]["summary"] == "1/2"
    assert status["reason"] == "Running"


def test_pods_held_back_by_kueue_are_reported_as_such() -> None:
    cluster = Cluster(make_job())
    cluster.step()
    cluster.step()
    words = "it waits for its scheduling gate kueue.x-k8s.io/admission: Kueue has not admitted it yet"
    for name in ("j-worker-0", "j-worker-1"):
        cluster.pods[name] = replace(cluster.pods[name], gated=True, problem=words)
    seen = cluster.observe()
    status = status_of(seen, plan(seen), FACTS, {})
    found = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions(status)["PodsScheduled"] == ("False", "SchedulingGated")
    assert found["PodsScheduled"]["message"] == f"2 of 3 pods are gated; j-worker-0: {words}"
    assert words in found["Available"]["message"]
    assert status["reason"] == "SchedulingGated"


def test_the_largest_status_is_far_below_the_api_servers_limit() -> None:
    members = {f"worker-{index}": Failure(9, 9, 9, "\u20ac" * LONGEST_REASON, NOW, NOW) for index in range(1500)}
    sick = tuple(SickNode(f"n{index}" * 60, "worker-1", "\u20ac" * 1024, NOW) for index in range(16))
    told = status_after(update_memory(observe(Memory(started_at=NOW, failures=members, sick_nodes=sick))).memory)
    assert len(told["failures"]) == MOST_FAILED_MEMBERS == STATUS_SCHEMA["properties"]["failures"]["maxItems"]
    # etcd takes 1.5 MiB, the record of who wrote which field included.
    assert len(json.dumps(told, ensure_ascii=False).encode()) < 2**19


def test_a_redis_that_cannot_start_is_reported_with_the_reason() -> None:
    redis = Pod("j-redis-0", "r", None, node="n1", problem="FailedMount: no such volume")
    waiting = Pod("j-worker-0", "u", 0, phase=PodPhase.RUNNING)
    for pods, reason in (((waiting,), "PodsNotStarting"), ((replace(waiting, ready=True),), "StoreUnreachable")):
        status = status_after(Memory(started_at=NOW, desired=1), pods=pods, redis=redis)
        found = {condition["type"]: condition for condition in status["conditions"]}["Available"]
        assert found["reason"] == reason
        assert found["message"].startswith("j-redis-0: FailedMount: no such volume")


def test_a_pod_that_cannot_start_is_reported_with_the_reason() -> None:
    cluster = Cluster(make_job())
    cluster.step()
    cluster.step()
    for name in ("j-worker-0", "j-worker-1"):
        cluster.pods[name] = replace(cluster.pods[name], problem="ImagePullBackOff: no such image")
    seen = cluster.observe()
    found = {condition["type"]: condition for condition in status_of(seen, plan(seen), FACTS, {})["conditions"]}
    assert found["Ready"]["reason"] == "PodsNotStarting"
    assert "no such image" in found["Ready"]["message"]


def test_only_changes_of_frequent_fields_can_wait() -> None:
    quiet = status_after(Memory(progress=BatchProgress(requests=10, ok=1)))
    moved = status_after(Memory(progress=BatchProgress(requests=10, ok=2, tokens=99)), quiet)
    assert moved != quiet
    assert not is_urgent(moved, quiet)
    assert is_urgent(status_after(Memory(desired=3), quiet), quiet)


def test_an_unreadable_manifest_keeps_the_memory() -> None:
    before = status_after(Memory(desired=2, failures={"worker-0": Failure(1, 1, 1, "why", NOW)}))
    status = refused_status("spec.workers: wrong", 4, before, NOW)
    assert status["reason"] == "InvalidManifest"
    assert conditions(status)["Ready"] == ("False", "InvalidManifest")
    assert conditions(status)["Stalled"] == ("True", "InvalidManifest")
    assert memory_of(status).failures == memory_of(before).failures


@pytest.mark.parametrize("outcome", JobOutcome)
def test_an_ended_job_stays_ended_with_an_unreadable_manifest(outcome: JobOutcome) -> None:
    before = status_after(Memory(desired=0, ending=Ending(outcome, "Why", "as it was", NOW)))
    status = refused_status("spec.workers: wrong", 4, before, NOW + 60)
    assert memory_of(status) == memory_of(before)
    assert conditions(status) == conditions(before)
    assert status["observedGeneration"] == 4


def test_a_refused_template_is_reported_beside_running_pods() -> None:
    cluster = Cluster(make_job())
    for _ in range(4):
        cluster.step()
        cluster.tick()
    cluster.templates = TemplateVerdict(TemplateAnswer.INVALID, "spec.workers.template: unknown field")
    observation = cluster.observe()
    status = status_of(observation, plan(observation), StatusDetails(3, "image"), {})
    assert status["reason"] == "TemplateInvalid"
    for kind, expected in {"TemplateInvalid": "True", "Stalled": "True", "Ready": "False"}.items():
        assert conditions(status)[kind] == (expected, "TemplateInvalid")
    assert conditions(status)["Available"] == ("True", "WorkersReady")


@pytest.mark.parametrize(("done", "expected"), [(0, None), (5, 100), (10, 0)])
def test_the_time_left_is_given_once_a_length_is_known(done: int, expected: int | None) -> None:
    progress = BatchProgress(requests=10, ok=done, tokens=200 * done, ok_tokens=200 * done, closed_tokens=200 * done)
    memory = Memory(started_at=NOW - 100, progress=progress)
    status = status_of(observe(memory), Plan((), memory), replace(FACTS, tokens_per_second=10.0), {})
    assert status["progress"].get("etaSeconds") == expected


def test_no_time_left_is_given_for_responses_longer_than_expected() -> None:
    progress = BatchProgress(requests=10, ok=5, tokens=9000, ok_tokens=1000, closed_tokens=1000)
    memory = Memory(started_at=NOW - 100, progress=progress)
    status = status_of(observe(memory), Plan((), memory), replace(FACTS, tokens_per_second=10.0), {})
    assert "etaSeconds" not in status["progress"]


def test_without_a_speed_there_is_no_time_left() -> None:
    progress = BatchProgress(requests=10, ok=5, tokens=1000, ok_tokens=1000, closed_tokens=1000)
    memory = Memory(started_at=NOW - 100, progress=progress)
    status = status_of(observe(memory), Plan((), memory), replace(FACTS, tokens_per_second=None), {})
    assert "etaSeconds" not in status["progress"]


def test_a_running_pod_without_a_store_is_not_available() -> None:
    cluster = Cluster(make_job())
    cluster.step()
    cluster.step()
    cluster.tick()
    cluster.store_answers = False
    assert all(pod.phase is PodPhase.RUNNING for pod in cluster.pods.values())
    seen = cluster.observe()
    assert conditions(status_of(seen, plan(seen), FACTS, {}))["Available"] == ("False", "StoreUnreachable")
    assert "the store does not answer" in str(status_of(seen, plan(seen), FACTS, {}))
    seen = replace(seen, store_loads=True)
    assert "the store loads its data; workers keep their requests" in str(status_of(seen, plan(seen), FACTS, {}))


def test_a_fleet_that_fails_to_load_its_weights_is_not_available() -> None:
    cluster = Cluster(make_job())
    for _ in range(3):
        cluster.step()
        cluster.tick()
    seen = cluster.observe()
    view = seen.store
    assert view is not None
    some = [replace(report, not_loaded="v1 has other weights") for report in view.reports.values()]

    def told(failing: int) -> dict[str, Any]:
        reports = {report.pod: report for report in some[:failing]}
        now = replace(seen, store=replace(view, reports={**view.reports, **reports}))
        return status_of(now, plan(now), FACTS, {})

    assert conditions(told(1))["Available"] == ("True", "WorkersReady")
    assert "workers take requests; worker-0: v1 has other weights" in str(told(1))
    assert conditions(told(len(some)))["Available"] == ("False", "WeightsNotLoaded")
    assert conditions(told(len(some)))["Progressing"] == ("False", "WeightsNotLoaded")
    assert told(len(some))["reason"] == "WeightsNotLoaded"


def test_a_nearly_full_store_is_reported_with_its_numbers() -> None:
    cluster = Cluster(make_job())
    for _ in range(3):
        cluster.step()
        cluster.tick()
    seen = cluster.observe()
    assert seen.store is not None
    assert conditions(status_of(seen, plan(seen), FACTS, {}))["Available"] == ("True", "WorkersReady")
    full = replace(seen, store=replace(seen.store, memory=StoreMemory(used=95 * 2**30 // 100, limit=2**30)))
    assert conditions(status_of(full, plan(full), FACTS, {}))["Available"] == ("True", "StoreFull")
    assert "Redis uses 972.8 MiB of its 1.00 GiB" in str(status_of(full, plan(full), FACTS, {}))


def test_kubectl_explain_names_every_condition() -> None:
    text = STATUS_SCHEMA["properties"]["conditions"]["description"]
    assert tuple(text.partition("per type: ")[2].removesuffix(".").split(", ")) == KINDS
