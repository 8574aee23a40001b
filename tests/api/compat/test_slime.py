"""slime's calls, replayed as its code makes them, without a token, from the trusted machine.

Read: slime/rollout/sglang_rollout.py at 0044b40, slime/backends/sglang_utils/server_control.py at 15b8e50,
external.py at 130027a and sglang_engine.py at 03b32d8.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from openseer_core.ids import WorkerId
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState
from openseer_worker.weights.hashing import digest
from tests.api.compat.stories import long_job, running
from tests.api.served import Served, served
from tests.worker.weights.made import write_weights

PROMPT = [5, 6, 7]
SAMPLING: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "max_new_tokens": 40,
    "stop": None,
    "stop_token_ids": None,
    "skip_special_tokens": False,
    "no_stop_trim": True,
    "spaces_between_special_tokens": False,
}


@asynccontextmanager
async def trainer(server: Served) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=120.0, trust_env=False) as client:
        yield client


async def asked(client: httpx.AsyncClient, method: str, url: str, body: Any = None) -> Any:
    """An engine's answer; slime raises for any other status."""
    answer = await client.request(method, url, json=body)
    answer.raise_for_status()
    return answer.json() if answer.headers.get("content-type") == "application/json" else answer.text


async def generated(client: httpx.AsyncClient, **sampling: Any) -> dict[str, Any]:
    body = {"sampling_params": SAMPLING | sampling, "return_logprob": True, "input_ids": PROMPT}
    return dict(await asked(client, "POST", "/generate", body))


async def test_slime_finds_the_server_as_an_external_engine_and_as_its_router() -> None:
    async with served(trusted="127.0.0.1") as server, trainer(server) as client:
        while (await client.get("/health_generate")).status_code != 200:
            await asyncio.sleep(0.05)
        info = await asked(client, "GET", "/server_info")
        assert int(info["pp_size"]) * int(info["tp_size"]) == 1
        await asked(client, "GET", "/flush_cache")
        added = await client.post("/workers", json={"url": server.url, "worker_type": "regular"})
        assert added.status_code == 202
        (worker,) = (await asked(client, "GET", "/workers"))["workers"]
        assert worker["url"] == server.url
        await asked(client, "GET", f"{worker['url']}/health_generate")
        await asked(client, "DELETE", f"/workers/{worker['id']}")
        assert (await client.delete("/workers/other")).status_code == 404
        other = await client.post(
            "/workers", json={"url": "http://any:secret@10.0.0.9:30000", "worker_type": "regular"}
        )
        assert other.status_code == 400
        assert "found http://10.0.0.9:30000 (regular), allowed: " in other.text
        assert "secret" not in other.text


async def test_slime_aborts_until_idle_and_continues_with_new_weights(tmp_path: Path) -> None:
    write_weights(tmp_path / "step_1", "new")
    async with served(job=long_job(), trusted="127.0.0.1") as server, trainer(server) as client:
        calls = [asyncio.create_task(generated(client, max_new_tokens=20_000)) for _ in range(4)]
        await running(server, 4)
        (worker,) = (await asked(client, "GET", "/workers"))["workers"]
        await asked(client, "POST", f"{worker['url']}/abort_request", {"abort_all": True})
        answers = await asyncio.gather(*calls)
        loads = await asked(client, "GET", f"{worker['url']}/v1/loads?include=core,disagg,queues")
        assert sum(load["num_total_reqs"] for load in loads["loads"]) == 0
        for answer in answers:
            meta = answer["meta_info"]
            assert meta["finish_reason"]["type"] == "abort"
            assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
        await asked(client, "POST", "/pause_generation", {})
        await asked(client, "GET", "/flush_cache")
        body = {"model_path": str(tmp_path / "step_1"), "weight_version": "1"}
        assert (await asked(client, "POST", "/update_weights_from_disk", body))["success"]
        await asked(client, "POST", "/continue_generation", {})
        assert (await asked(client, "GET", "/get_weight_version"))["weight_version"] == "1"
        assert (await generated(client))["meta_info"]["weight_version"] == "1"


async def test_slime_borrows_and_returns_the_gpus_in_stages(tmp_path: Path) -> None:
    write_weights(tmp_path / "step_1", "new")
    async with served(trusted="127.0.0.1") as server, trainer(server) as client:
        await generated(client)
        await asked(client, "POST", "/release_memory_occupation", {})
        await asked(client, "POST", "/resume_memory_occupation", {"tags": ["weights"]})
        body = {"model_path": str(tmp_path / "step_1"), "weight_version": "1"}
        assert (await asked(client, "POST", "/update_weights_from_disk", body))["success"]
        for tags in (["kv_cache", "cuda_graph"], None):
            await asked(client, "POST", "/resume_memory_occupation", {"tags": tags})
        assert (await generated(client))["meta_info"]["weight_version"] == "1"


async def test_slimes_checks_of_tensors_and_copies_are_refused_with_the_remedy() -> None:
    async with Served(trusted="127.0.0.1") as server, trainer(server) as client:
        for action in ("snapshot", "reset_tensors", "compare"):
            answer = await client.post("/weights_checker", json={"action": action})
            assert (answer.status_code, answer.json()["success"]) == (400, False)
            assert f"found '{action}', allowed: checksum" in answer.json()["message"]
            assert "--check-weight-update-equal" in answer.json()["message"]
        body = {"local_checkpoint_dir": "/local", "source_dir": "/weights", "target_version": 7}
        answer = await client.post("/pull_weights", json=body)
        assert (answer.status_code, answer.json()["success"]) == (400, False)
        assert "--update-weight-local-checkpoint-dir" in answer.json()["message"]


async def test_the_checksum_is_of_the_files_that_all_workers_have_loaded(tmp_path: Path) -> None:
    write_weights(tmp_path / "step_1", "new")
    async with served(trusted="127.0.0.1") as server, trainer(server) as client:
        await generated(client)
        assert "initial have no digest" in (await client.get("/weights_checker")).json()["message"]
        body = {"model_path": str(tmp_path / "step_1"), "weight_version": "1"}
        await asked(client, "POST", "/update_weights_from_disk", body)
        for method, sent in (("GET", None), ("POST", {"action": "checksum", "selector": "all"})):
            found = await asked(client, method, "/weights_checker", sent)
            assert found["success"]
            assert (found["per_engine_checksum"], found["weight_version"]) == (digest(tmp_path / "step_1"), "1")
        some = await client.post("/weights_checker", json={"skip_tensor_list": ["lm_head"]})
        assert "a digest is of all tensors" in some.json()["message"]
        await server.store.heartbeat(
            WorkerId("worker-9", "x"), Heartbeat(WorkerState.IDLE, weights=WeightsReport(version="1", loaded="0" * 64))
        )
        other = await client.get("/weights_checker")
        assert other.status_code == 400
        assert "not loaded by these workers: " in other.json()["message"]
        assert "worker-9" in other.json()["message"]


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.7", 401)])
async def test_only_the_trusted_address_needs_no_token(trusted: str, status: int) -> None:
    async with Served(trusted=trusted) as server, trainer(server) as client:
        assert (await client.get("/v1/job")).status_code == status
        forged = {"X-Forwarded-For": trusted, "Forwarded": f"for={trusted}", "X-Real-IP": trusted}
        assert (await client.get("/v1/job", headers=forged)).status_code == status
        # A token that is sent is checked, also from the trusted machine.
        assert (await client.get("/v1/job", headers={"Authorization": "Bearer wrong"})).status_code == 401
