"""The fleet over HTTP: new weights, GPUs lent to the trainer, figures for autoscalers and Prometheus."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from openseer_core.ids import WorkerId
from openseer_core.queue.batch import OpenBatch
from openseer_core.worker.heartbeat import Heartbeat, PassingReport, WeightsReport, WorkerState
from tests.api.served import LONG, Served, prompts, served, serving_job
from tests.worker.weights.made import write_weights


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder that scripted engines take for weights."""
    folder = tmp_path / "weights"
    write_weights(folder, "new")
    return str(folder)


async def published(server: Served, body: dict[str, Any]) -> dict[str, Any]:
    """Publishes weights and returns the ended transaction."""
    await server.call("POST", "/weights", body, status=202)
    shown = await server.call("GET", "/weights")
    while shown["transaction"]["phase"] not in ("done", "failed"):
        params = {"revision": shown["revision"], "wait_seconds": 10}
        shown = await server.call("GET", "/weights", params=params)
    return dict(shown["transaction"])


async def has_tokens(server: Served, batch: int, group: str, index: int) -> bool:
    return bool((await server.call("GET", f"/batches/{batch}/groups/{group}/requests/{index}"))["token_ids"])


async def ready(server: Served, workers: int = 2) -> None:
    while (await server.call("GET", "/job"))["workers_ready"] < workers:
        await asyncio.sleep(0.05)


async def test_new_weights_reach_every_worker_and_a_batch_belongs_to_them(weights: str) -> None:
    async with served() as server:
        await ready(server)
        body = {"version": "v1", "source": {"path": weights}}
        reported = await published(server, body)
        assert (reported["phase"], reported["waiting_for"], reported["replaced"]) == ("done", [], [])
        assert {worker["version"] for worker in reported["workers"]} == {"v1"}
        assert set(reported["seconds"]) >= {"prefetch", "quiesce", "load"}
        again = await server.call("POST", "/weights", body, status=200)
        assert again["id"] == reported["id"]
        await server.call("POST", "/weights", body | {"source": {"path": "/elsewhere"}}, status=409)
        batch = await server.open()
        await server.upload(batch, prompts(3), seal=True)
        items = await server.until_complete(batch)
        versions = {span["version"] for item in items if item["kind"] == "result" for span in item["versions"]}
        assert versions == {"v1"}
        await server.call("POST", "/batches", {"weights_version": "initial"}, status=409)
        text = (await server.http.get("/metrics")).text
        assert 'openseer_api_weights_transaction{job="served",namespace="default",phase="done"} 1.0' in text


async def test_no_answer_contains_the_workers_weights_addresses() -> None:
    async with served() as server:
        await ready(server)
        passing = PassingReport(address="http://10.0.0.7:8080/weights/hidden", whole=(1,))
        beat = Heartbeat(WorkerState.IDLE, weights=WeightsReport(version="initial", passing=passing))
        await server.store.heartbeat(WorkerId("worker-9", "x"), beat)
        while "worker-9" not in str(await server.call("GET", "/workers")):
            await asyncio.sleep(0.05)
        ours = ("/workers", "/weights", "/job", "/fleet", "/autoscaling")
        shown = [str(await server.call("GET", path)) for path in ours]
        shown += [(await server.http.get(path)).text for path in ("/metrics", "/server_info", "/workers")]
        assert not [text for text in shown if "hidden" in text or "10.0.0.7" in text]


async def test_kept_responses_name_the_weights_of_each_token(weights: str) -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(2, n=2), seal=True)
        request: dict[str, Any] = {}
        while len(request.get("token_ids", ())) < 30:
            await asyncio.sleep(0.05)
            request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        reported = await published(server, {"version": "v1", "source": {"path": weights}, "mode": "keep"})
        assert reported["phase"] == "done"
        kept = len((await server.call("GET", f"/batches/{batch}/groups/g0/requests/0"))["token_ids"])
        while len(request["token_ids"]) <= kept:  # the new weights have sampled no token yet
            await asyncio.sleep(0.05)
            request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        await server.call("POST", f"/batches/{batch}/cancel", {"groups": ["g0"], "index": 0})
        request = await server.call("GET", f"/batches/{batch}/groups/g0/requests/0")
        assert [span["version"] for span in request["versions"]] == ["initial", "v1"]
        assert (await server.call("GET", f"/batches/{batch}"))["weights_version"] == "v1"


async def test_a_batch_with_pinned_weights_refuses_groups_for_others(weights: str) -> None:
    async with served() as server:
        await ready(server)
        named, unnamed = await server.open(weights_version="initial"), await server.open()
        for batch in (named, unnamed):
            await server.upload(batch, prompts(2))
        assert (await published(server, {"version": "v1", "source": {"path": weights}}))["phase"] == "done"
        more = {"groups": prompts(3)}
        refused = await server.call("POST", f"/batches/{named}/groups", more, status=409)
        for part in ("opened for weights initial", "now serves v1", "group g2 is new"):
            assert part in refused["detail"]
        again = await server.upload(named, prompts(2), seal=True)
        assert (again["accepted"], again["present"]) == (0, 2)
        await server.call("POST", f"/batches/{unnamed}/groups", more, params={"seal": True})
        for batch, versions in ((named, {"initial"}), (unnamed, {"initial", "v1"})):
            items = await server.until_complete(batch)
            assert {
                span["version"] for item in items if item["kind"] == "result" for span in item["versions"]
            } == versions


async def test_aborted_responses_are_reported_with_their_tokens(weights: str) -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(3, n=2), seal=True)
        while not all([await has_tokens(server, batch, f"g{group}", index) for group in range(3) for index in (0, 1)]):
            await asyncio.sleep(0.05)
        reported = await published(server, {"version": "v1", "source": {"path": weights}, "mode": "abort"})
        assert reported["phase"] == "done"
        items = await server.until_complete(batch)
        results = [item for item in items if item["kind"] == "result"]
        assert {item["finish_reason"] for item in results} == {"aborted"}
        assert {span["version"] for item in results for span in item["versions"]} == {"initial"}


async def test_weights_that_cannot_be_loaded_leave_the_fleet_unchanged(tmp_path: Path) -> None:
    async with served() as server:
        await ready(server)
        source = {"path": str(tmp_path / "nothing")}
        reported = await published(server, {"version": "v1", "source": source, "retries": 0})
        assert reported["phase"] == "failed"
        assert "worker-0" in reported["message"]
        assert str(tmp_path / "nothing") in reported["message"]
        assert (await server.call("GET", "/weights"))["version"] == "initial"
        batch = await server.open()
        await server.upload(batch, prompts(2), seal=True)
        await server.until_complete(batch)


async def test_a_worker_that_fails_to_load_the_fleets_weights_is_not_ready(weights: str) -> None:
    async with Served(serving_job(workers=1)) as server:
        await published(server, {"version": "v1", "source": {"path": weights, "digest": "0" * 64}})
        server.start_worker()
        while not (errors := (await server.call("GET", "/weights"))["errors"]):
            await asyncio.sleep(0.05)
        assert f"{weights} has other weights: found digest" in errors["worker-0"]
        workers = (await server.call("GET", "/workers"))["workers"]
        assert [worker["error"] for worker in workers] == [errors["worker-0"]]
        job = await server.call("GET", "/job")
        assert (job["workers"], job["workers_ready"]) == (1, 0)
        assert (await server.http.get("/health_generate")).status_code == 503


async def test_a_waiting_publication_can_be_cancelled(weights: str) -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(2))
        await server.until_sampled(batch)
        await server.call("POST", "/weights", {"version": "v1", "source": {"path": weights}}, status=202)
        shown = await server.call("GET", "/weights")
        while shown["transaction"]["phase"] != "quiesce":
            await asyncio.sleep(0.05)
            shown = await server.call("GET", "/weights")
        assert shown["transaction"]["waiting_for"]
        taken = await server.call("POST", "/weights/abort")
        assert taken["transaction"]["phase"] == "failed"
        assert (await server.call("GET", "/job"))["weights_version"] == "initial"


async def test_lent_gpus_are_returned_and_their_idle_time_is_reported() -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        batch = await server.open()
        await server.upload(batch, prompts(2))
        await ready(server)
        await server.call("POST", "/release", {"mode": "sleep"})
        lent = await server.call("GET", "/fleet", params={"wait_seconds": 60})
        assert (lent["state"], lent["mode"], lent["waiting_for"]) == ("released", "sleep", [])
        assert (await server.call("GET", "/job"))["running"] == 0
        await server.call("POST", "/acquire")
        back = await server.call("GET", "/fleet", params={"wait_seconds": 60})
        assert back["state"] == "awake"
        assert back["busy_gpu_seconds"] > 0
        while not (await server.call("GET", "/job"))["running"]:
            await asyncio.sleep(0.05)


async def test_autoscalers_read_the_backlog_and_the_workers_it_needs() -> None:
    job = serving_job(workers=1)
    async with Served(job) as server:
        reported = await server.call("GET", "/autoscaling")
        assert (reported["queue_depth"], reported["backlog_tokens"], reported["desired_workers"]) == (0, 0, 0)
        batch = await server.open()
        await server.upload(batch, prompts(10))
        reported = await server.call("GET", "/autoscaling")
        assert (reported["queue_depth"], reported["backlog_tokens"], reported["desired_workers"]) == (40, 800, 1)


async def test_in_a_cluster_autoscalers_read_the_operators_figure() -> None:
    job = serving_job(workers=1)
    async with Served(job) as server:
        server.context.renew(job.model_copy(update={"status": {"backlog": {"workers": 1}}}))
        assert (await server.call("GET", "/autoscaling"))["desired_workers"] == 1
        server.context.renew(job)
        assert (await server.call("GET", "/autoscaling"))["desired_workers"] == 0


async def test_a_batch_for_failed_weights_ends_with_that_reason(weights: str) -> None:
    async with served(job=serving_job(sampling=LONG)) as server:
        old = await server.open()
        await server.upload(old, prompts(1))
        await server.until_sampled(old)
        await server.call("POST", "/weights", {"version": "v1", "source": {"path": weights}}, status=202)
        early = await server.open(weights_version="v1")
        await server.upload(early, prompts(2), seal=True)
        await server.call("POST", "/weights/abort")
        items = await server.until_complete(early)
        assert {item["finish_reason"] for item in items if item["kind"] == "result"} == {"aborted"}
        assert (await server.call("GET", f"/batches/{old}"))["state"] == "open"


async def test_a_batch_opened_during_a_publish_uses_the_new_weights(weights: str) -> None:
    async with served() as server:
        await ready(server)
        record, _ = await server.store.open_batch(OpenBatch("initial", "{}"))
        await published(server, {"version": "v1", "source": {"path": weights}})
        late, _ = await server.store.open_batch(OpenBatch("initial", "{}"))
        for number in (record.number, late.number):
            await server.upload(number, prompts(1), seal=True)
            items = await server.until_complete(number)
            versions = {span["version"] for item in items if item["kind"] == "result" for span in item["versions"]}
            assert versions == {"v1"}
