"""Every part of a call is honoured or refused by name: types, parameters, bodies, repeats."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.served import Served, served, serving_job

IDS = {"id": "a", "prompt_token_ids": [5]}
SAMPLING = {"max_tokens": 2}


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    """One worker, and an open batch."""
    async with served(job=serving_job(workers=1)) as server:
        await server.open()
        yield server


NATIVE: list[tuple[str, Any, str]] = [
    ("/batches", {"group_size": "4"}, 'group_size: found "4", allowed: a whole number'),
    ("/batches", {"carry": "yes"}, 'carry: found "yes", allowed: true or false'),
    ("/batches", {"target": {"groups": True}}, "target.groups: found true, allowed: a whole number"),
    ("/batches", {"target": {"groups": 2.0}}, "target.groups: found 2.0, allowed: a whole number"),
    ("/batches", {"max_staleness": 2}, "max_staleness: found 2; it limits carried groups: set carry: true"),
    ("/batches", {"sampling": {"repetition_penalty": 1.1}}, "repetition_penalty: found 1.1, not supported: the engine"),
    ("/batches", {"sampling": {"stop": "x"}}, 'sampling.stop: found "x", allowed: a list'),
    ("/batches", {"sampling": {"stop": ["x"] * 17}}, "sampling.stop: found a list of 17, allowed: at most 16 entries"),
    ("/batches/1/groups", {"groups": [IDS | {"n": "1"}]}, 'groups.0.n: found "1", allowed: a whole number'),
    ("/batches/1/groups", {"groups": [IDS | {"reserve": 1}]}, "reserve: found 1, allowed: true or false"),
    ("/batches/1/groups", [], "found a list of 0, allowed: a map"),
    ("/batches/1/acknowledge", {"cursor": True}, "cursor: found true, allowed: a whole number"),
    ("/batches/1/cancel", {"groups": ["nobody"]}, "batch 1 has no group nobody"),
    ("/batches/1/seal", {"groups": 99}, "body: found one, which this route does not read"),
    ("/batches/1/seal?seal=1", None, "query.seal: unknown parameter, known: none"),
    ("/weights", {"version": "v", "source": {"path": "/a"}, "retries": "1"}, 'retries: found "1"'),
]


@pytest.mark.parametrize(("path", "body", "why"), NATIVE)
async def test_an_invalid_value_is_refused_with_its_field(path: str, body: Any, why: str, server: Served) -> None:
    answer = await server.http.post(f"/v1{path}", json=body)
    assert answer.status_code in (404, 422)
    assert why in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/batches?state=open", "query.state: unknown parameter, known: none"),
        ("/batches/1/results?after=9", "query.after: unknown parameter, known: cursor, limit, wait_seconds"),
        ("/batches/1/results?Cursor=9", "query.Cursor: unknown parameter"),
        ("/batches/1/results?cursor=0&cursor=1", "query.cursor: found 2 times, allowed: once"),
    ],
)
async def test_an_unknown_parameter_is_refused_with_the_known_ones(path: str, why: str, server: Served) -> None:
    assert why in (await server.call("GET", path, status=422))["detail"]


async def test_neutral_parameters_and_an_empty_seal_body_are_accepted(server: Served) -> None:
    await server.call("POST", "/batches", {"sampling": {"repetition_penalty": 1.0, "logitBias": {}}}, status=201)
    await server.call("POST", "/batches/1/seal", {})


COMPATIBLE: list[tuple[str, Any, str]] = [
    ("/v1/completions", {"prompt": [5], "max_tokens": "5"}, 'max_tokens: found "5", allowed: a whole number'),
    ("/v1/completions", {"prompt": [5], "max_tokens": True}, "max_tokens: found true, allowed: a whole number"),
    ("/v1/completions", {"prompt": [5], "ignore_eos": "true"}, 'ignore_eos: found "true", allowed: true or false'),
    ("/v1/completions", {"prompt": [True]}, "prompt.0: found true, allowed: a whole number or text or a list"),
    ("/v1/completions", {"prompt": [[5], ["5"]]}, 'prompt.1.0: found "5", allowed: a whole number'),
    ("/v1/completions", {"prompt": [5], "maxtokens": 5}, "maxtokens: unknown field; did you mean max_tokens?"),
    ("/v1/completions", {"prompt": [5], "sampling_params": SAMPLING}, "give its fields beside the prompt"),
    ("/generate", {"input_ids": [5], "sampling_params": {"temperature": "x"}}, "sampling_params.temperature: found"),
    ("/generate", {"input_ids": [5], "max_new_tokns": 5}, "did you mean sampling_params.max_new_tokens?"),
    ("/generate", {"input_ids": [5], "max_new_tokens": 5}, "did you mean sampling_params.max_new_tokens?"),
    ("/inference/v1/generate", {"token_ids": [5], "sampling_params": {"temprature": 1}}, "did you mean temperature?"),
    ("/inference/v1/generate", {"token_ids": [5], "sampling_params": {"foo": 1}}, "foo: unknown field"),
    ("/generate", {"input_ids": [[5], [-1]]}, "prompt 1: input_ids[0]: found token -1"),
    ("/generate", {"input_ids": [5, -1]}, "input_ids[1]: found token -1"),
    ("/inference/v1/generate", {"token_ids": [5, -1]}, "token_ids[1]: found token -1"),
    ("/v1/completions", {"prompt": [5, -1]}, "prompt[1]: found token -1"),
    ("/v1/completions", {"prompt": [5], "min_tokens": -1}, "min_tokens: found -1, allowed: at least 0"),
    ("/abort_request", {"abort_all": "no"}, 'abort_all: found "no", allowed: true or false'),
]


@pytest.mark.parametrize(("path", "body", "why"), COMPATIBLE)
async def test_fields_of_a_protocol_are_checked_by_name_and_type(
    path: str, body: Any, why: str, server: Served
) -> None:
    answer = await server.http.post(path, json=body)
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


async def test_whole_floats_and_unknown_fields_of_engines_pass(server: Served) -> None:
    body: dict[str, Any] = {
        "prompt": [5],
        "max_tokens": 2.0,
        "store": False,
        "service_tier": "auto",
        "extra_key": "k",
        "metadata": {},
    }
    assert (await server.http.post("/v1/completions", json=body)).status_code == 200


async def test_a_repeat_with_another_reserve_is_refused_and_keys_have_no_order(server: Served) -> None:
    async def upload(**more: Any) -> tuple[int, str]:
        answer = await server.http.post("/v1/batches/1/groups", json={"groups": [IDS | more, IDS | {"id": "b"}]})
        return answer.status_code, answer.text

    both = {"x": 1, "y": [{"z": 1, "a": 2}]}
    assert await upload(metadata=both) == (200, '{"accepted":2,"present":0}')
    assert await upload(metadata={"y": [{"a": 2, "z": 1}], "x": 1}) == (200, '{"accepted":0,"present":2}')
    assert (await upload(metadata=both, reserve=True))[0] == 409
    assert (await upload(metadata=both | {"x": True}))[0] == 409


async def test_true_and_one_make_different_bodies_under_a_key(server: Served) -> None:
    for metadata, status in (({"a": 1, "b": 2}, 201), ({"b": 2, "a": 1}, 200), ({"a": True, "b": 2}, 409)):
        body, headers = {"metadata": metadata}, {"Idempotency-Key": "k"}
        await server.call("POST", "/batches", body, status=status, headers=headers)


async def test_content_types_are_case_insensitive(server: Served) -> None:
    headers = {"Content-Type": "Application/X-NDJSON"}
    assert (await server.http.post("/v1/batches/1/groups", content="\n", headers=headers)).status_code == 200
