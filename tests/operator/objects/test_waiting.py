"""Waits for a job end in every state: kstatus (Flux, Helm), and Argo CD with the health check in docs/gitops."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.plan.observation import PodPhase
from openseer_core.plan.plan import plan
from openseer_core.queue.messages import BatchProgress
from openseer_operator.objects.status import StatusDetails, refused_status, status_of
from tests.core.plan.cluster_model import Cluster, make_job, serving
from tests.operator.job_store import JobStore
from tests.repository import ROOT

GENERATION = 3
CRD = yaml.safe_load((ROOT / "crds/rolloutjobs.yaml").read_text(encoding="utf-8"))
UNSEEN = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"]


def status_now(cluster: Cluster) -> dict[str, Any]:
    seen = cluster.observe()
    return status_of(seen, plan(seen), StatusDetails(GENERATION, "worker:1"), {})


def settled(cluster: Cluster) -> Cluster:
    for _ in range(4):
        cluster.step()
        cluster.tick()
    return cluster


def ended(code: int) -> Cluster:
    cluster = settled(Cluster(make_job(), progress=BatchProgress(groups=1, requests=8, ok=8, sealed=True)))
    cluster.end("j-driver", code, "why")
    return settled(cluster)


def suspended(*, quiet: bool) -> Cluster:
    cluster = settled(Cluster(make_job()))
    cluster.change(suspend=True)
    cluster.step()
    return settled(cluster) if quiet else cluster


def released() -> Cluster:
    cluster = settled(Cluster(serving(make_job())))
    cluster.released = True
    return settled(cluster)


def gated() -> Cluster:
    cluster = Cluster(make_job())
    cluster.step()
    cluster.step()
    for name, pod in cluster.pods.items():
        cluster.pods[name] = replace(pod, gated=pod.index is not None, problem="it waits for its gate")
    return cluster


def states() -> dict[str, tuple[dict[str, Any], str, str]]:
    """The status of a job in each state, with the expected results of kstatus and Argo CD."""
    waits, over, broken = ("InProgress", "Progressing"), ("Current", "Healthy"), ("Failed", "Degraded")
    running = settled(Cluster(make_job()))
    outdated = status_now(running) | {"observedGeneration": GENERATION - 1}
    return {
        "not looked at": (UNSEEN, *waits),
        "outdated": (outdated, *waits),
        "starting": (status_now(Cluster(make_job())), *waits),
        "gated": (status_now(gated()), *waits),
        "running": (status_now(running), *over),
        "complete": (status_now(ended(0)), *over),
        "failed": (status_now(ended(2)), *broken),
        "refused": (refused_status("spec.model: missing", GENERATION, {}, 1.0), *broken),
        "suspending": (status_now(suspended(quiet=False)), "InProgress", "Suspended"),
        "suspended": (status_now(suspended(quiet=True)), "Current", "Suspended"),
        "released": (status_now(released()), *over),
        "scaled to none": (status_now(settled(Cluster(make_job(workers={"replicas": 0})))), *over),
    }


def kstatus(job: Mapping[str, Any]) -> str:
    """The result of kstatus for an object of an unknown kind, by its documented rules."""
    status = job["status"]
    if status.get("observedGeneration", job["metadata"]["generation"]) != job["metadata"]["generation"]:
        return "InProgress"
    found = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def job_with(status: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "j", "generation": GENERATION}, "status": status}


@pytest.mark.parametrize("state", states())
def test_kstatus_waits_only_for_states_that_will_change(state: str) -> None:
    status, expected, _ = states()[state]
    assert kstatus(job_with(status)) == expected


@pytest.mark.redis
async def test_the_health_check_for_argo_covers_every_state(tmp_path: Path) -> None:
    # A Redis runs the same Lua 5.1.
    patch = yaml.safe_load((ROOT / "docs/gitops/argocd-cm.yaml").read_text(encoding="utf-8"))
    check = patch["data"]["resource.customizations.health.openseer.dev_RolloutJob"]
    script = (
        f"local obj = cjson.decode(ARGV[1])\nlocal function check()\n{check}\nend\n"
        "local health = check()\nreturn {health.status, health.message}"
    )
    told: dict[str, tuple[str, str]] = {}
    async with JobStore(tmp_path / "redis") as server:
        for state, (status, *_) in states().items():
            health, message = await server.command("EVAL", script, "0", json.dumps(job_with(status)))
            told[state] = health.decode(), message.decode()
    assert {state: health for state, (health, _) in told.items()} == {
        state: expected for state, (_, _, expected) in states().items()
    }
    assert told["failed"][1] == "InvalidInput: driver: exit code 2: why"
    assert "it waits for its gate" in told["gated"][1]


def test_a_suspended_pod_with_a_running_sidecar_still_counts() -> None:
    cluster = suspended(quiet=True)
    assert "no pod is left" in str(status_now(cluster))
    cluster = suspended(quiet=False)
    pod = cluster.pods["j-driver"]
    cluster.pods = {"j-driver": replace(pod, phase=PodPhase.SUCCEEDED, lingers=True)}
    assert "no pod is left" not in str(status_now(cluster))
