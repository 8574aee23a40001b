"""The condition of nodes with sick GPUs; a played API server runs each probe to the end that the test gives it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from openseer_core.plan.actions import Announce
from openseer_operator.kube import node_repair
from openseer_operator.kube.api import Api, KubeApiError, NotThereError
from openseer_operator.kube.node_repair import MOST_UNFIT_NODES, PROBES_AT_ONCE, PROBES_PER_NAMESPACE, NodeRepair
from openseer_operator.objects.node_probe import finding_of, probe_name, probe_pod
from openseer_operator.objects.reading import JsonObject
from openseer_operator.settings import OperatorSettings

JOB = ("lab", "job")
SETTINGS = OperatorSettings("system", "worker:1", "operator:1", node_condition="GpuReady", probe_runtime_class="nvidia")
SICK, WELL, BLIND = (8, "error: gpu1: Xid 79"), (0, "8 GPUs are healthy"), (1, "error: no GPU could be read")


class PlayedApi:
    """A server with probes and conditions. `ends`: exit code and message of each node's probe; `gone`: deleted nodes;
    `fails`: errors of the next writes of conditions."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.fails: dict[str, Exception] = {}
        self.ends: dict[str, tuple[int, str]] = {}
        self.pods: dict[str, JsonObject] = {}
        self.conditions: dict[str, JsonObject] = {}
        self.probed: list[str] = []

    async def create(self, kind: str, namespace: str, body: JsonObject) -> JsonObject:
        assert (kind, namespace) == ("Pod", "system")
        self.probed.append(body["spec"]["nodeName"])
        created = self.pods[body["metadata"]["name"]] = {**body, "metadata": {**body["metadata"], "uid": "u"}}
        return created

    async def get(self, kind: str, namespace: str | None, name: str) -> JsonObject:
        if kind == "Node":
            if name in self.gone:
                raise NotThereError("no such node", 404)
            return {"status": {"conditions": [self.conditions[name]] if name in self.conditions else []}}
        code, message = self.ends[self.pods[name]["spec"]["nodeName"]]
        ended = {"state": {"terminated": {"exitCode": code, "message": message}}}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [ended]}
        return {**self.pods[name], "status": status}

    async def delete(self, kind: str, namespace: str, name: str, uid: str, *, at_once: bool) -> JsonObject:
        return self.pods.pop(name)

    async def set_condition(self, kind: str, name: str, condition: JsonObject) -> JsonObject:
        if name in self.fails:
            raise self.fails.pop(name)
        self.conditions[name] = condition
        return {}

    async def pages(self, kind: str, namespaces: tuple[str, ...]) -> AsyncIterator[list[JsonObject]]:
        yield [
            {"metadata": {"name": name}, "status": {"conditions": [condition]}}
            for name, condition in self.conditions.items()
        ]


class Bench:
    """A node repair with its played server, and the events that it wrote."""

    def __init__(self) -> None:
        self.api = PlayedApi()
        self.told: list[tuple[str, str]] = []
        self.repair = self.make()

    def make(self) -> NodeRepair:
        return NodeRepair(cast("Api", self.api), SETTINGS, self.tell)

    async def tell(self, node: str, event: Announce) -> None:
        self.told.append((node, event.reason))

    async def look(self, **ends: tuple[int, str]) -> None:
        """One round in which the probes end like this."""
        self.api.ends |= ends
        await self.repair.look()

    def condition(self, node: str) -> tuple[str, str] | None:
        found = self.api.conditions.get(node)
        return (found["status"], found["message"]) if found is not None else None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(node_repair, "RECHECK_SECONDS", 0.0)
    return Bench()


async def test_a_nodes_condition_follows_its_probe(bench: Bench) -> None:
    bench.repair.suspect(JOB, "n1")
    await bench.look(n1=SICK)
    assert bench.condition("n1") == ("False", "gpu1: Xid 79")
    await bench.look(n1=SICK)
    await bench.look(n1=BLIND)
    assert bench.condition("n1") == ("False", "gpu1: Xid 79")
    await bench.look(n1=WELL)
    assert bench.condition("n1") == ("True", "8 GPUs are healthy")
    assert bench.told == [("n1", "GpuSick"), ("n1", "GpuProbeFailed"), ("n1", "GpusWell")]
    await bench.look()
    assert (bench.api.probed, bench.api.pods) == (["n1"] * 4, {})


async def test_a_sick_node_recreated_under_its_name_is_unfit_again(bench: Bench) -> None:
    bench.repair.suspect(JOB, "n1")
    await bench.look(n1=SICK)
    bench.api.conditions.pop("n1")
    await bench.look(n1=SICK)
    assert bench.condition("n1") == ("False", "gpu1: Xid 79")
    bench.api.conditions.pop("n1")
    await bench.look(n1=WELL)
    assert bench.api.conditions == {}
    probes = len(bench.api.probed)
    await bench.look()
    assert len(bench.api.probed) == probes, "the node is well and is not probed again"


async def test_a_jobs_report_alone_sets_no_condition(bench: Bench) -> None:
    for node in ("n1", "n2"):
        bench.repair.suspect(JOB, node)
    await bench.look(n1=WELL, n2=BLIND)
    assert bench.api.conditions == {}
    assert bench.told == [("n2", "GpuProbeFailed")]


async def test_the_hourly_limit_of_probes_is_per_namespace(bench: Bench) -> None:
    for index in range(200):
        bench.repair.suspect(("lab", f"job-{index // 8}"), f"n{index}")
    bench.repair.suspect(("other", "job"), "o0")
    for _ in range(10):
        await bench.look(**{f"n{index}": WELL for index in range(200)}, o0=WELL)
    assert bench.api.probed == [*(f"n{index}" for index in range(PROBES_PER_NAMESPACE)), "o0"]


async def test_a_recovered_node_is_probed_despite_reports_of_other_nodes(bench: Bench) -> None:
    bench.repair.suspect(JOB, "n1")
    await bench.look(n1=SICK)
    others = {f"o{index}": WELL for index in range(2 * PROBES_AT_ONCE)}
    for node in others:
        bench.repair.suspect(JOB, node)
    await bench.look(**others, n1=WELL)
    assert bench.condition("n1") == ("True", "8 GPUs are healthy")
    assert len(bench.api.probed) == 1 + PROBES_AT_ONCE


async def test_a_node_deleted_during_its_update_does_not_affect_others(bench: Bench) -> None:
    for node in ("n1", "n2"):
        bench.repair.suspect(JOB, node)
    await bench.look(n1=SICK, n2=SICK)
    bench.api.fails["n1"] = NotThereError("no such node", 404)
    await bench.look(n1=WELL, n2=WELL)
    assert bench.condition("n2") == ("True", "8 GPUs are healthy")
    await bench.look()
    assert bench.api.probed.count("n1") == 2


async def test_an_error_at_one_node_stops_no_other(bench: Bench) -> None:
    for node in ("n1", "n2"):
        bench.repair.suspect(JOB, node)
    bench.api.fails["n1"] = ValueError("no JSON")
    await bench.look(n1=SICK, n2=SICK)
    assert bench.condition("n2") == ("False", "gpu1: Xid 79")


async def test_the_next_probe_sets_a_condition_that_failed_to_be_set(bench: Bench) -> None:
    bench.repair.suspect(JOB, "n1")
    for end, status in ((SICK, "False"), (WELL, "True")):
        bench.api.fails["n1"] = KubeApiError("busy", 429)
        before = bench.condition("n1")
        await bench.look(n1=end)
        assert bench.condition("n1") == before
        await bench.look(n1=end)
        assert (bench.condition("n1") or ("",))[0] == status


async def test_the_number_of_unfit_nodes_is_limited(bench: Bench) -> None:
    nodes = [f"n{index}" for index in range(MOST_UNFIT_NODES + 1)]
    for node in nodes:
        bench.repair.suspect(JOB, node)
        await bench.look(**{node: SICK})
    assert list(bench.api.conditions) == nodes[:-1]
    assert bench.told[-1] == (nodes[-1], "TooManyUnfitNodes")


async def test_a_deleted_unfit_node_frees_its_place_in_the_limit(bench: Bench) -> None:
    for index in range(MOST_UNFIT_NODES):
        bench.repair.suspect(JOB, f"n{index}")
        await bench.look(**{f"n{index}": SICK})
    bench.api.gone.add("n0")
    await bench.look()
    bench.repair.suspect(("lab", "other"), "n9")
    await bench.look(n9=SICK)
    assert bench.condition("n9") == ("False", "gpu1: Xid 79")


async def test_another_replica_takes_over_unfit_nodes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.repair.suspect(JOB, "n1")
    await bench.look(n1=SICK)
    bench.api.conditions["n2"] = {"type": "GpuReady", "status": "False", "reason": "SomebodyElse", "message": ""}
    bench.api.ends["n1"] = WELL
    monkeypatch.setattr(node_repair, "PAUSE_SECONDS", 0.001)
    work = asyncio.create_task(bench.make().run())
    async with asyncio.timeout(60.0):
        while ("n1", "GpusWell") not in bench.told:
            await asyncio.sleep(0.001)
    work.cancel()
    assert "n2" not in bench.api.probed, "a foreign condition was changed"


def test_a_probe_is_restricted_and_tied_to_its_node_with_the_charts_image() -> None:
    pod: dict[str, Any] = probe_pod("n1", SETTINGS)
    spec = pod["spec"]
    assert (pod["metadata"]["name"], pod["metadata"]["namespace"]) == (probe_name("n1"), "system")
    assert (spec["nodeName"], spec["runtimeClassName"], spec["automountServiceAccountToken"]) == ("n1", "nvidia", False)
    assert (spec["containers"][0]["image"], spec["securityContext"]["runAsNonRoot"]) == ("worker:1", True)
    assert finding_of({"status": {"phase": "Running"}}) is None
    assert "imagePullSecrets" not in spec


def test_a_probe_has_the_charts_image_pull_secrets() -> None:
    secrets = ({"name": "registry"},)
    assert probe_pod("n1", replace(SETTINGS, pull_secrets=secrets))["spec"]["imagePullSecrets"] == list(secrets)
