"""Every route refuses input beyond the model's limits, with index, value and range, before it reaches a worker."""

from typing import Any

import pytest

from openseer_core.ids import WorkerId
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from tests.api.served import Served, prompts, results, served, serving_job

OUTSIDE = 2**18
TOLD = f"found token {OUTSIDE}, which is not in the model's vocabulary, allowed: 0 to {OUTSIDE - 1}"
CANARY = {"token_ids": [1, OUTSIDE], "logprobs": [-1.0]}
SMALL = {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.002, "kvBlocks": 8, "blockTokens": 16}}


async def refused(server: Served, path: str, body: Any) -> str:
    """The message of a refused call."""
    answer = await server.http.post(path, json=body)
    assert answer.status_code in (400, 422), answer.text
    return " ".join(answer.text.split()).replace("\\u0027", "'")


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/v1/batches", {"sampling": {"stopTokenIds": [3, OUTSIDE]}}, "sampling.stopTokenIds[1]"),
        ("/v1/batches/1/groups", {"groups": [{"id": "g", "prompt_token_ids": [1, OUTSIDE]}]}, "prompt_token_ids[1]"),
        (
            "/v1/batches/1/groups",
            {"groups": [{"id": "g", "prompt": "a", "sampling": {"stopTokenIds": [OUTSIDE]}}]},
            "sampling.stopTokenIds[0]",
        ),
        ("/v1/weights", {"version": "v1", "source": {"path": "/none"}, "canary": CANARY}, "canary.token_ids[1]"),
        ("/v1/completions", {"prompt": [OUTSIDE]}, "prompt[0]"),
        ("/v1/completions", {"prompt": [[1], [2, OUTSIDE]]}, "prompt 1: prompt[1]"),
        ("/v1/completions", {"prompt": "a", "stop_token_ids": [OUTSIDE]}, "stop_token_ids[0]"),
        ("/inference/v1/generate", {"token_ids": [OUTSIDE], "sampling_params": {}}, "token_ids[0]"),
        ("/generate", {"input_ids": [1, 2, OUTSIDE], "sampling_params": {}}, "input_ids[2]"),
    ],
)
async def test_a_token_outside_the_vocabulary_is_refused_with_its_place(path: str, body: Any, place: str) -> None:
    async with Served() as server:
        await server.open()
        assert f"{place}: {TOLD}" in await refused(server, path, body)


async def test_appended_tokens_must_be_in_the_vocabulary_and_fit_the_context() -> None:
    model = SMALL["scripted"]
    assert isinstance(model, dict)
    job = serving_job(model=SMALL | {"scripted": model | {"kvBlocks": 4}}, sampling={"maxTokens": 3000})
    async with served(job=job) as server:
        batch = await server.open()
        await server.upload(batch, [{"id": "g0", "prompt_token_ids": [5] * 10, "n": 1, "sampling": {"maxTokens": 40}}])
        page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 60})
        [first] = results(page["items"])
        path = f"/v1/batches/{batch}/groups/g0/requests/0/continue"
        assert f"token_ids[0]: {TOLD}" in await refused(server, path, {"turn": 0, "token_ids": [OUTSIDE]})
        rest = 64 - 10 - len(first["token_ids"])
        answer = await server.http.post(path, json={"turn": 0, "token_ids": [7] * rest})
        assert answer.status_code == 409
        assert "leave no room for a response in a worker's KV cache, allowed with the response: 64" in answer.text


async def test_a_prompt_too_large_for_the_model_is_refused_without_workers() -> None:
    async with Served(job=serving_job(model=SMALL)) as server:
        batch = await server.open()
        body = {"groups": [{"id": "g", "prompt_token_ids": [1] * 400}]}
        told = "400 tokens do not fit a worker's KV cache, allowed with the response: 128"
        assert told in await refused(server, f"/v1/batches/{batch}/groups", body)
        assert told in await refused(server, "/v1/completions", {"prompt": [1] * 400})


async def test_the_largest_workers_report_replaces_the_computed_limits() -> None:
    async with Served() as server:
        batch = await server.open()
        reports = [{"context_tokens": 64, "vocabulary": 100}, {"context_tokens": 48, "vocabulary": 100}]
        for number, report in enumerate(reports):
            heartbeat = Heartbeat(WorkerState.IDLE, WorkerMetrics(report))
            await server.store.heartbeat(WorkerId(f"worker-{number}", "1"), heartbeat)
        await server.context.snapshot(fresh=True)
        path = f"/v1/batches/{batch}/groups"
        told = await refused(server, path, {"groups": [{"id": "g", "prompt_token_ids": [1] * 70}]})
        assert "70 tokens do not fit the model's context, allowed with the response: 64" in told
        told = await refused(server, path, {"groups": [{"id": "g", "prompt_token_ids": [100]}]})
        assert "allowed: 0 to 99" in told
        await server.upload(batch, prompts(1))
        models = await server.call("GET", "/models")
        assert models["data"][0]["max_model_len"] == 64
