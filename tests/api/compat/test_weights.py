"""Trainers publish weights, pause the fleet and borrow its GPUs through the routes of other servers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.job import RolloutJob
from tests.api.compat.stories import PROMPT, all_ended, get, groups, long_job, post, running, until
from tests.api.served import Served, served, serving_job
from tests.worker.weights.made import write_weights


def folder(path: Path, name: str) -> str:
    """Weights that the scripted engine can load."""
    made = path / name
    write_weights(made, name)
    return str(made)


async def generate(server: Served, **body: Any) -> Any:
    return await post(server, "/generate", {"input_ids": PROMPT} | body)


async def ready(server: Served) -> None:
    while (await server.http.get("/health_generate")).status_code != 200:
        await asyncio.sleep(0.02)


async def is_held(server: Served) -> bool:
    return (await server.store.fleet_spec()).held


async def test_sglangs_update_from_disk_is_one_transaction_of_the_fleet(tmp_path: Path) -> None:
    async with served() as server:
        await ready(server)
        first = await generate(server, sampling_params={"max_new_tokens": 8})
        assert first["meta_info"]["weight_version"] == "initial"
        body = {"model_path": folder(tmp_path, "step-1"), "weight_version": 1, "flush_cache": True}
        answer = await post(server, "/update_weights_from_disk", body)
        assert answer == {"success": True, "message": "Weights 1 are loaded.", "num_paused_requests": 0}
        assert await get(server, "/get_weight_version") == {"weight_version": "1"}
        assert (await get(server, "/model_info"))["model_path"] == body["model_path"]
        second = await generate(server, sampling_params={"max_new_tokens": 8})
        assert second["meta_info"]["weight_version"] == "1"
        assert second["meta_info"]["weight_versions"][0]["version"] == "1"
        # The same prompt under other weights is another group, in another batch.
        batches = {record.version: record.number for record in await server.store.batches() if record.progress.groups}
        assert await groups(server, batches["1"]) == {"live-1": 1}
        assert await post(server, "/update_weights_from_disk", body)  # a repeat changes nothing
        assert (await server.store.fleet_spec()).versions == ("initial", "1")
        renamed = await post(server, "/update_weight_version", {"new_version": "1"})
        assert renamed["success"] is True
        await post(server, "/update_weight_version", {"new_version": "2"}, status=400)


async def test_each_update_without_a_version_gets_its_own_name(tmp_path: Path) -> None:
    async with served() as server:
        await ready(server)
        path = folder(tmp_path, "latest")
        for _ in range(2):
            assert (await post(server, "/update_weights_from_disk", {"model_path": path}))["success"]
        assert (await server.store.fleet_spec()).versions == ("initial", "latest", "latest.2")


async def test_a_failed_update_has_its_reason_and_keeps_the_old_weights(tmp_path: Path) -> None:
    async with served() as server:
        await ready(server)
        answer = await post(server, "/update_weights_from_disk", {"model_path": str(tmp_path / "none")}, status=400)
        assert answer["success"] is False
        assert "none" in answer["message"]
        answer = await post(server, "/update_weights", {"weight_dir": str(tmp_path / "none")}, status=400)
        assert answer["error"]["type"] == "invalid_request_error"
        assert "there is no folder" in answer["error"]["message"]
        body = {"model_path": folder(tmp_path, "v1"), "load_format": "flash_rl"}
        answer = await post(server, "/update_weights_from_disk", body, status=400)
        assert "load_format: found" in str(answer)
        assert await get(server, "/get_weight_version") == {"weight_version": "initial"}
        assert (await generate(server, sampling_params={"max_new_tokens": 4}))["output_ids"]


async def test_a_drained_update_finishes_running_requests_and_holds_new_ones(tmp_path: Path) -> None:
    async with served(job=long_job(600), held=True) as server:
        old = asyncio.create_task(generate(server))
        await running(server)
        updating = asyncio.create_task(
            post(server, "/update_weights_from_disk", {"model_path": folder(tmp_path, "v1"), "weight_version": "v1"})
        )

        async def draining() -> bool:
            transaction = (await server.store.fleet_spec()).active_transaction
            return transaction is not None and transaction.phase == "quiesce"

        await until(draining)
        new = asyncio.create_task(generate(server))
        server.release()
        assert (await updating)["success"]
        assert [span["version"] for span in (await old)["meta_info"]["weight_versions"]] == ["initial"]
        assert [span["version"] for span in (await new)["meta_info"]["weight_versions"]] == ["v1"]


async def test_prime_rls_update_continues_running_requests_on_new_weights(tmp_path: Path) -> None:
    async with served(job=long_job(300), held=True) as server:
        running_call = asyncio.create_task(generate(server))
        await running(server)
        await post(server, "/pause", params={"mode": "keep", "clear_cache": "false"})
        assert await get(server, "/is_paused") == {"is_paused": True}
        assert (await server.call("GET", "/job"))["paused_since"] > 0
        held = asyncio.create_task(generate(server, rid="held"))
        answer = await post(server, "/update_weights", {"weight_dir": folder(tmp_path, "step_1")})
        assert answer["weight_version"] == "step_1"
        assert not held.done()
        await post(server, "/resume")
        assert (await server.call("GET", "/job"))["paused_since"] is None
        server.release()
        spans = (await running_call)["meta_info"]["weight_versions"]
        assert [span["version"] for span in spans] == ["initial", "step_1"]
        assert [span["version"] for span in (await held)["meta_info"]["weight_versions"]] == ["step_1"]


async def test_an_update_may_abort_running_requests(tmp_path: Path) -> None:
    async with served(job=long_job()) as server:
        running_call = asyncio.create_task(generate(server))
        await running(server)
        body = {"model_path": folder(tmp_path, "v1"), "weight_version": "v1", "abort_all_requests": True}
        assert (await post(server, "/update_weights_from_disk", body))["success"]
        meta = (await running_call)["meta_info"]
        assert meta["finish_reason"]["type"] == "abort"
        assert [span["version"] for span in meta["weight_versions"]] == ["initial"]


async def test_a_pause_aborts_running_requests_and_holds_new_ones() -> None:
    async with served(job=long_job()) as server:
        running_call = asyncio.create_task(generate(server))
        await running(server)
        assert await post(server, "/pause") == {"status": "paused"}
        assert (await running_call)["meta_info"]["finish_reason"]["type"] == "abort"
        held = asyncio.create_task(
            generate(server, rid="held", sampling_params={"max_new_tokens": 5, "min_new_tokens": 0})
        )
        await asyncio.sleep(0.5)
        assert not held.done()
        # A waiting request can be aborted; it has no tokens.
        waiting = asyncio.create_task(generate(server, rid="x"))

        async def is_aborted() -> bool:
            await post(server, "/abort_request", {"rid": "x"})
            return waiting.done()

        await until(is_aborted)
        assert (await waiting)["output_ids"] == []
        assert await post(server, "/resume") == {"status": "resumed"}
        assert len((await held)["output_ids"]) <= 5


async def test_a_pause_may_wait_for_running_requests() -> None:
    async with served(job=long_job(300), held=True) as server:
        running_call = asyncio.create_task(generate(server))
        await running(server)
        pausing = asyncio.create_task(post(server, "/pause", params={"mode": "wait"}))
        await until(lambda: is_held(server))
        server.release()
        await pausing
        assert len((await running_call)["output_ids"]) == 300
        await post(server, "/continue_generation", {})
        paused = await post(server, "/pause_generation", {})
        assert paused["status"] == "ok"
        assert await get(server, "/is_paused") == {"is_paused": True}


async def test_a_resume_cancels_a_pause_that_still_waits() -> None:
    async with served(job=long_job(600), held=True) as server:
        call = asyncio.create_task(generate(server))
        await running(server)
        pausing = asyncio.create_task(post(server, "/pause", params={"mode": "wait"}, status=409))
        await until(lambda: is_held(server))
        await post(server, "/resume")
        assert "generation was resumed before this call had paused it" in (await pausing)["error"]["message"]
        server.release()
        assert len((await call)["output_ids"]) == 600


async def test_gpus_are_released_and_acquired_again() -> None:
    async with served(job=long_job(600), held=True) as server:
        running_call = asyncio.create_task(generate(server))
        await running(server)
        slept = await post(server, "/sleep", params={"level": 1, "mode": "keep"})
        assert (slept["status"], slept["level"], slept["freed"]) == ("sleeping", 1, False)
        assert "run on CPUs" in slept["note"]
        assert await get(server, "/is_sleeping") == {"is_sleeping": True}
        assert not running_call.done()
        assert (await post(server, "/wake_up"))["status"] == "awake"
        server.release()
        assert len((await running_call)["output_ids"]) == 600
        await post(server, "/release_memory_occupation", {"tags": ["weights"]})
        await post(server, "/resume_memory_occupation", {"tags": ["weights"]})
        assert await get(server, "/is_sleeping") == {"is_sleeping": False}


async def test_sglangs_transfers_in_memory_are_refused_with_the_remedy() -> None:
    async with served() as server:
        refused = await post(server, "/update_weights_from_tensor", {}, status=400)
        assert "update_weights_from_disk" in refused["message"]


def quick_job() -> RolloutJob:
    return serving_job(sampling={"maxTokens": 4})


async def test_delivered_responses_are_deleted_from_the_store() -> None:
    async with served(job=quick_job()) as server:
        await asyncio.gather(*(post(server, "/generate", {"input_ids": [number]}) for number in range(20)))
        await all_ended(server)
        assert len(await server.store.batches()) == 1

        # Other weights, or some seconds without a request, close a live batch; then its data are deleted.
        async def nothing() -> bool:
            return not await server.store.batches()

        await until(nothing)
        assert (await generate(server))["output_ids"]


@pytest.mark.parametrize("url", ["ftp://u:hidden@host/x", "HTTP://u:hidden@a..b/x", "http:/u:hidden@host/x"])
async def test_no_answer_repeats_a_password_of_a_url(url: str) -> None:
    async with served() as server:
        sent: list[tuple[str, dict[str, Any]]] = [
            ("/v1/weights", {"version": "v1", "source": {"url": url}}),
            ("/v1/weights", {"version": "v1", "source": {"path": url}}),
            ("/v1/weights", {"version": "v1", "source": url}),
            ("/v1/weights", {"version": url, "source": {"path": "/x"}}),
            ("/update_weights_from_disk", {"model_path": url}),
            ("/update_weights", {"weight_dir": url}),
        ]
        for path, body in sent:
            answer = await server.http.post(path, json=body)
            assert 400 <= answer.status_code < 500, path
            assert "hidden" not in answer.text
        assert "hidden" not in (await server.http.get("/v1/weights")).text
