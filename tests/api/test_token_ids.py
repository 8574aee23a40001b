"""Token ids on every route: an invalid id or one outside the model's vocabulary is refused with its position and
value."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from openseer_core.admission import SCRIPTED_VOCABULARY
from tests.api.served import Served, served, serving_job

LAST = SCRIPTED_VOCABULARY - 1
OUTSIDE = [-1, SCRIPTED_VOCABULARY, 2**31, 2**63, 2**70, -(2**63)]
NO_IDS = [True, 1.5, 5.0, 1e300]


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """One worker, and a batch with a finished response."""
    async with served(job=serving_job(workers=1)) as server:
        await server.upload(await server.open(), [{"id": "done", "prompt_token_ids": [5], "n": 1}], seal=False)
        await server.call("GET", "/batches/1/results", params={"wait_seconds": 60})
        yield server


def native(bad: object) -> Iterator[tuple[str, Any]]:
    """Calls of openseer's own routes, each with one such id."""
    yield "/v1/batches/1/groups", {"groups": [{"id": "a", "prompt_token_ids": [5, bad]}]}
    stop = {"stopTokenIds": [3, bad]}
    yield "/v1/batches/1/groups", {"groups": [{"id": "a", "prompt_token_ids": [5], "sampling": stop}]}
    yield "/v1/batches", {"sampling": stop}
    yield "/v1/batches/1/groups/done/requests/0/continue", {"turn": 0, "token_ids": [5, bad]}
    canary = {"token_ids": [1, bad], "logprobs": [-0.1]}
    yield "/v1/weights", {"version": "v1", "source": {"path": "/a"}, "canary": canary}


def compatible(bad: object) -> Iterator[tuple[str, Any]]:
    """Calls of the compatible routes, each with one such id."""
    few = {"max_tokens": 2}
    stop = few | {"stop_token_ids": [3, bad]}
    yield "/v1/completions", {"prompt": [5, bad], **few}
    yield "/v1/completions", {"prompt": [[5], [5, bad]], **few}
    yield "/v1/completions", {"prompt": [5], **stop}
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], **stop}
    yield "/generate", {"input_ids": [5, bad], "sampling_params": few}
    yield "/generate", {"input_ids": [[5], [5, bad]], "sampling_params": few}
    yield "/generate", {"input_ids": [5], "sampling_params": stop}
    yield "/inference/v1/generate", {"token_ids": [5, bad], "sampling_params": few}
    yield "/inference/v1/generate", {"token_ids": [5], "sampling_params": stop}
    yield "/v1/completions", {"prompt": [5], "logit_bias": {json.dumps(bad): 1}, **few}
    yield "/v1/completions", {"prompt": [5], "allowed_token_ids": [bad], **few}


async def test_an_invalid_token_id_is_named_on_every_route(server: Served) -> None:
    for bad in OUTSIDE + NO_IDS:
        for status, calls in ((422, native(bad)), (400, compatible(bad))):
            for path, body in calls:
                answer = await server.http.post(path, json=body)
                assert answer.status_code == status, f"{path} {body}: {answer.text}"
                assert json.dumps(bad) in answer.text.lower(), f"{path} {body}: {answer.text}"


async def test_a_text_is_refused_as_token_id_on_every_route(server: Served) -> None:
    for status, calls in ((422, native("5")), (400, compatible("5"))):
        for path, body in calls:
            assert (await server.http.post(path, json=body)).status_code == status, f"{path} {body}"


async def test_the_last_token_id_is_accepted_on_every_route(server: Served) -> None:
    for path, body in (*list(native(LAST))[:-1], *list(compatible(LAST))[:-2]):
        if "groups" in body:
            body["groups"][0]["id"] = f"g{len(json.dumps(body))}"
        answer = await server.http.post(path, json=body)
        assert answer.status_code < 300, f"{path} {body}: {answer.text}"
