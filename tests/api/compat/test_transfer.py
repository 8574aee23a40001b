"""vLLM's transfer routes before a sender has connected: refusals and ends."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.job import RolloutJob
from tests.api.compat.stories import get, post
from tests.api.served import Served, served, serving_job

INIT = {"master_address": "127.0.0.1", "master_port": 1, "rank_offset": 1, "world_size": 2}


def receiving_job(folder: Path, **weights: Any) -> RolloutJob:
    return serving_job(weights={"transfer": {"backend": "gloo", "folder": str(folder)}, **weights})


async def refused(server: Served, path: str, body: Any = None, *, status: int = 400) -> str:
    answer = await post(server, path, body, status=status)
    return str(answer["error"]["message"])


async def test_without_a_receiver_the_answer_names_the_field_to_set(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as server:
        assert (await get(server, "/server_info"))["vllm_config"]["weight_transfer_config"] is None
        message = await refused(server, "/init_weight_transfer_engine", {"init_info": INIT})
        assert "spec.weights.transfer" in message
        assert message in caplog.text  # vLLM's client shows its user the status alone


async def test_a_transfer_group_that_the_fleet_cannot_join_is_refused(tmp_path: Path) -> None:
    async with served(job=receiving_job(tmp_path, allowedHosts=["trainer.example"])) as server:
        assert (await get(server, "/server_info"))["vllm_config"]["weight_transfer_config"] == {"backend": "gloo"}
        assert await get(server, "/get_world_size") == {"world_size": 1}
        for first, size in ((1, 3), (0, 1), (-1, 0), (True, 2), (1.0, 2.0)):
            init = INIT | {"rank_offset": first, "world_size": size}
            message = await refused(server, "/init_weight_transfer_engine", {"init_info": init})
            assert f"found rank_offset {first!r} and world_size {size!r}" in message
        message = await refused(server, "/init_weight_transfer_engine", {"init_info": INIT})
        assert "names host 127.0.0.1, allowed by spec.weights.allowedHosts: trainer.example" in message
        hidden = {"nccl_unique_id_b64": "AAAA", "rank_offset": 1, "world_size": 2}
        message = await refused(server, "/init_weight_transfer_engine", {"init_info": hidden})
        assert "the sender's host cannot be read from it" in message
        assert (await server.store.fleet_spec()).reception is None


async def test_the_loss_of_a_joining_worker_is_reported(tmp_path: Path) -> None:
    async with Served(receiving_job(tmp_path)) as server:
        message = await refused(server, "/init_weight_transfer_engine", {"init_info": INIT}, status=429)
        assert "no worker is ready" in message
        worker = server.start_worker()
        while (await server.http.get("/health_generate")).status_code != 200:
            await asyncio.sleep(0.02)
        joining = asyncio.create_task(
            refused(server, "/init_weight_transfer_engine", {"init_info": INIT}, status=409),
        )
        while (await server.store.fleet_spec()).reception is None:
            await asyncio.sleep(0.02)
        worker.drain()
        assert "the receiving worker, has ended" in await joining


async def test_a_worker_started_without_a_receiver_is_reported(tmp_path: Path) -> None:
    async with Served(receiving_job(tmp_path)) as server:
        server.job = serving_job()
        server.start_worker()
        while (await server.http.get("/health_generate")).status_code != 200:
            await asyncio.sleep(0.02)
        message = await refused(server, "/init_weight_transfer_engine", {"init_info": INIT}, status=409)
        assert "worker-0 was started without spec.weights.transfer; restart it; join again" in message


async def test_an_update_of_both_kinds_or_too_deep_is_refused() -> None:
    async with served() as server:
        both: dict[str, Any] = {"update_info": {"names": []}, "weight_dir": "/weights/1"}
        assert "found both, needed: one" in await refused(server, "/update_weights", both)
        deep = b'{"update_info": {"names": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
        answer = await server.http.post("/update_weights", content=deep, headers={"content-type": "application/json"})
        assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/start_weight_update", "/update_weights", "/finish_weight_update"])
async def test_a_step_without_a_group_names_the_missing_first_call(tmp_path: Path, path: str) -> None:
    async with served(job=receiving_job(tmp_path)) as server:
        body: dict[str, Any] = {"update_info": {}} if path == "/update_weights" else {}
        assert "call /init_weight_transfer_engine first" in await refused(server, path, body, status=409)
