"""Trainers borrow the GPUs in stages, in their own order of calls, and load weights into sleeping engines."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from openseer_api.compat.control import lending
from openseer_core.ids import WorkerId
from openseer_core.weights.fleet_spec import MEMORY_PARTS
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState
from tests.api.compat.stories import PROMPT, get, long_job, post, running
from tests.api.compat.test_weights import folder, ready
from tests.api.served import Served, served


async def generate(server: Served, **sampling: Any) -> Any:
    body = {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 8} | sampling}
    return await post(server, "/generate", body)


@asynccontextmanager
async def lent(**options: Any) -> AsyncGenerator[Served]:
    async with served(**options) as server:
        await ready(server)
        yield server


async def reported(server: Served) -> set[str]:
    """The versions that workers report."""
    return {worker["version"] for worker in (await server.call("GET", "/workers"))["workers"]}


async def test_trls_order_of_level_2_sleep_and_load_continues_sampling(tmp_path: Path) -> None:
    async with lent() as server:
        for step in ("step-1", "step-2"):
            slept = await post(server, "/sleep", params={"level": 2})
            assert (slept["status"], slept["level"], slept["freed"]) == ("sleeping", 2, False)
            assert slept["note"] == lending.NOT_FREED
            assert await reported(server) == {""}
            waiting = asyncio.create_task(generate(server))
            woken = await post(server, "/wake_up", params={"tags": "weights"})
            assert (woken["status"], woken["tags"]) == ("sleeping", ["weights"])
            state = await server.call("GET", "/fleet")
            assert (state["state"], state["awake"], state["freed"]) == ("released", ["weights"], False)
            await post(server, "/update_weights", {"weight_dir": folder(tmp_path, step)})
            assert await reported(server) == {step}
            assert await get(server, "/is_sleeping") == {"is_sleeping": True}
            assert not waiting.done()
            woken = await post(server, "/wake_up", params={"tags": "kv_cache"})
            assert woken == {"status": "awake", "tags": ["kv_cache"]}
            assert [span["version"] for span in (await waiting)["meta_info"]["weight_versions"]] == [step]


async def test_waking_from_level_2_without_new_weights_reloads_the_previous(tmp_path: Path) -> None:
    async with lent() as server:
        await post(server, "/update_weights", {"weight_dir": folder(tmp_path, "step-1")})
        await post(server, "/sleep", params={"level": 2})
        assert (await post(server, "/wake_up"))["status"] == "awake"
        assert await reported(server) == {"step-1"}
        assert (await generate(server))["meta_info"]["weight_version"] == "step-1"


async def test_sglangs_order_releases_and_resumes_by_tags(tmp_path: Path) -> None:
    async with lent() as server:
        released = await post(server, "/release_memory_occupation", {"tags": ["kv_cache"]})
        assert (released["status"], released["awake"]) == ("released", ["weights"])
        assert (await post(server, "/release_memory_occupation", {"tags": ["weights"]}))["awake"] == []
        resumed = await post(server, "/resume_memory_occupation", {"tags": ["weights"]})
        assert (resumed["status"], resumed["awake"]) == ("resumed", ["weights"])
        waiting = asyncio.create_task(generate(server))
        body = {"model_path": folder(tmp_path, "v1"), "weight_version": "v1"}
        assert (await post(server, "/update_weights_from_disk", body))["message"] == "Weights v1 are loaded."
        await post(server, "/resume_memory_occupation", {"tags": ["kv_cache", "cuda_graph"]})
        assert (await waiting)["meta_info"]["weight_version"] == "v1"
        assert (await post(server, "/resume_memory_occupation", {}))["awake"] == list(MEMORY_PARTS)


async def test_weights_published_during_sleep_are_loaded_at_wake_up(tmp_path: Path) -> None:
    async with lent() as server:
        await post(server, "/release_memory_occupation")
        body = {"model_path": folder(tmp_path, "v1"), "weight_version": "v1"}
        answer = await post(server, "/update_weights_from_disk", body)
        assert answer["message"] == "Weights v1 are published; engines load them when they wake."
        assert await reported(server) == {"initial"}
        await post(server, "/resume_memory_occupation")
        assert await reported(server) == {"v1"}


async def test_the_kv_cache_may_wake_before_the_weights() -> None:
    async with lent() as server:
        await post(server, "/sleep", params={"level": 2})
        assert (await post(server, "/wake_up", params={"tags": "kv_cache"}))["status"] == "sleeping"
        assert (await post(server, "/wake_up", params={"tags": "weights"}))["status"] == "awake"
        assert (await generate(server))["meta_info"]["weight_version"] == "initial"


async def test_a_second_sleep_call_keeps_the_present_level() -> None:
    async with lent() as server:
        for level, found in ((1, 1), (2, 1)):
            assert (await post(server, "/sleep", params={"level": level}))["level"] == found
        assert await reported(server) == {"initial"}
        await post(server, "/wake_up", params={"tags": "weights"})
        assert (await post(server, "/sleep", params={"level": 2}))["level"] == 2
        await post(server, "/wake_up")
        assert (await post(server, "/wake_up"))["status"] == "awake"


@pytest.mark.parametrize(
    ("path", "options", "allowed"),
    [
        ("/wake_up", {"params": {"tags": ["weights", "graphs"]}}, "weights, kv_cache, scheduling"),
        ("/release_memory_occupation", {"body": {"tags": ["graphs"]}}, "weights, kv_cache, cuda_graph"),
        ("/resume_memory_occupation", {"body": {"tags": ["graphs"]}}, "weights, kv_cache, cuda_graph"),
    ],
)
async def test_unknown_tags_are_refused_with_the_known_ones(path: str, options: dict[str, Any], allowed: str) -> None:
    async with Served() as server:
        answer = await post(server, path, status=400, **options)
        assert answer["error"]["message"] == f"tags: found 'graphs', allowed: {allowed}"
        assert (await server.store.fleet_spec()).revision == 0


async def test_level_0_only_pauses_until_scheduling_wakes() -> None:
    async with lent(job=long_job(600), held=True) as server:
        call = asyncio.create_task(post(server, "/generate", {"input_ids": PROMPT}))
        await running(server)
        assert await post(server, "/sleep", params={"level": 0, "mode": "keep"}) == {"status": "sleeping", "level": 0}
        assert await get(server, "/is_sleeping") == {"is_sleeping": True}
        assert (await server.call("GET", "/fleet"))["state"] == "awake"
        assert (await post(server, "/wake_up", params={"tags": "scheduling"}))["status"] == "awake"
        assert await get(server, "/is_sleeping") == {"is_sleeping": False}
        server.release()
        assert len((await call)["output_ids"]) == 600


async def beat(server: Served, name: str, **report: Any) -> None:
    """A heartbeat of a worker that follows no fleet spec."""
    heartbeat = Heartbeat(WorkerState.IDLE, weights=WeightsReport(version="initial", **report))
    await server.store.heartbeat(WorkerId(name, "boot"), heartbeat)


async def test_a_call_overtaken_by_another_fails_with_the_reason() -> None:
    async with Served() as server:
        await beat(server, "worker-0")
        sleeping = asyncio.create_task(post(server, "/sleep", params={"mode": "keep"}, status=409))
        while (await server.store.fleet_spec()).rest is None:
            await asyncio.sleep(0.01)
        await post(server, "/v1/acquire")
        assert "another call put the engines to sleep, or woke them" in (await sleeping)["error"]["message"]


async def test_a_call_names_the_workers_that_do_not_follow_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "SLEEP_SECONDS", 0.0)
    async with Served() as server:
        await beat(server, "worker-0", error="started without sleep")
        await beat(server, "worker-1", asleep=True)
        answer = await post(server, "/sleep", status=503)
        assert answer["error"]["message"].endswith("waiting for worker-0 (started without sleep)")


async def test_memory_counts_as_freed_when_all_sleeping_workers_report_it() -> None:
    async with Served() as server:
        await beat(server, "worker-0", asleep=True, freed=True)
        assert await post(server, "/sleep") == {"status": "sleeping", "level": 1, "freed": True}
        await beat(server, "worker-1", asleep=True, freed=False)
        assert (await post(server, "/sleep"))["freed"] is False
