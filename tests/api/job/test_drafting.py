"""Drafting over HTTP: metrics of a batch and of the fleet, and minP, which drafts exclude."""

import re
from typing import Any

import pytest

from openseer_core.ids import WorkerId
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from tests.api.served import Served, prompts, serving_job

VLLM = {"path": "none", "engine": "vllm"}
MIN_P = {"maxTokens": 40, "minP": 0.1}


async def beat(server: Served, accepted: int, *, boot: str = "b", drafts: str = "on") -> None:
    """A worker's heartbeat: ten drafted tokens and one sampled token per request-step."""
    metrics: dict[str, float | int | str] = {
        "drafts": drafts,
        "steps": accepted,
        "draft_steps": accepted,
        "drafted_tokens": 10 * accepted,
        "accepted_tokens": accepted,
        "steps_refs_1": accepted,
        "tokens_refs_1": 2 * accepted,
    }
    await server.store.heartbeat(WorkerId("worker-0", boot), Heartbeat(WorkerState.BUSY, WorkerMetrics(metrics)))
    await server.context.snapshot(fresh=True)


async def test_metrics_of_a_batch_count_the_fleets_drafts_since_its_opening() -> None:
    async with Served(serving_job(model=VLLM)) as server:
        await beat(server, 100)
        batch = await server.open()
        before = await server.call("GET", f"/batches/{batch}/metrics")
        await beat(server, 130)
        await beat(server, 5, boot="again")
        after = await server.call("GET", f"/batches/{batch}/metrics")

    assert (before["rollout/accepted_tokens"], before["rollout/acceptance_length"]) == (0.0, 1.0)
    assert after["rollout/accepted_tokens"] == 5.0
    assert after["rollout/drafted_tokens"] == 50.0
    assert (after["rollout/acceptance_length"], after["rollout/draft_share"]) == (2.0, 0.5)


async def test_drafts_after_a_batchs_end_do_not_count_to_it() -> None:
    async with Served(serving_job(model=VLLM)) as server:
        await beat(server, 100)
        batch = await server.open()
        await beat(server, 130)
        await server.upload(batch, prompts(1), seal=True)
        await server.call("POST", f"/batches/{batch}/cancel", {})
        ended = await server.call("GET", f"/batches/{batch}/metrics")
        await beat(server, 500)
        later = await server.call("GET", f"/batches/{batch}/metrics")

    assert ended["rollout/accepted_tokens"] == later["rollout/accepted_tokens"] == 30.0


async def test_prometheus_metrics_contain_the_fleets_drafts() -> None:
    async with Served(serving_job(model=VLLM)) as server:
        await beat(server, 100)
        text = (await server.http.get("/metrics")).text

    found = dict(re.findall(r"openseer_api_(\w+)\{[^}]*\} (\S+)", text))
    assert (found["drafted_tokens"], found["accepted_tokens"], found["acceptance_length"]) == ("1000.0", "100.0", "2.0")


@pytest.mark.parametrize(
    ("enabled", "drafts"), [(True, "off: it could not pay"), (None, "on")], ids=["by the manifest", "by the worker"]
)
async def test_min_p_is_refused_with_the_remedy_where_drafts_ignore_it(enabled: bool | None, drafts: str) -> None:
    async with Served(serving_job(model=VLLM, speculation={"enabled": enabled})) as server:
        await beat(server, 1, drafts=drafts)
        refused = await server.call("POST", "/batches", {"sampling": MIN_P}, status=422)
        batch = await server.open()
        path, groups = f"/batches/{batch}/groups", prompts(1, sampling=MIN_P)
        group = await server.http.post(f"/v1{path}", json={"groups": groups})
        body: dict[str, Any] = {"model": "none", "prompt": [5, 6, 7], "min_p": 0.1, "max_tokens": 4}
        compatible = await server.http.post("/v1/completions", json=body)

    assert refused["detail"].startswith("sampling.minP: found 0.1; this job drafts, and the engine ignores it")
    assert "spec.speculation.enabled: false" in refused["detail"]
    assert group.status_code == 422
    assert group.json()["detail"].startswith("group g0: sampling.minP: found 0.1; this job drafts")
    assert compatible.status_code in (400, 422)
    assert "min_p: found 0.1; this job drafts" in compatible.text


@pytest.mark.parametrize(
    "spec",
    [
        {"speculation": {"enabled": False}},
        {"sampling": {"maxTokens": 40, "minP": 0.05}},
        {"speculation": {"enabled": None}},
    ],
    ids=["told not to draft", "cut by the manifest", "no worker drafts"],
)
async def test_min_p_is_accepted_by_a_job_without_drafts(spec: dict[str, Any]) -> None:
    async with Served(serving_job(model=VLLM, **spec)) as server:
        await beat(server, 1, drafts="off: spec.speculation.enabled is false")
        batch = await server.open(sampling=MIN_P)
        assert await server.upload(batch, prompts(1, sampling=MIN_P)) == {"accepted": 1, "present": 0}
