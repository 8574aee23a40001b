"""vLLM's and SGLang's own routes: tokens in, tokens out, aborts."""

import asyncio
import json
from typing import Any

import pytest

from openseer_core.ids import GroupId
from tests.api.compat.stories import PROMPT, all_ended, client_of, get, groups, long_job, post, running, whole
from tests.api.served import Served, served


async def test_vllms_route_gives_token_ids_with_versions() -> None:
    async with served() as server:
        params = {"n": 2, "max_tokens": 20, "logprobs": 0, "temperature": 0.7, "top_k": -1, "seed": 3,
                  "extra_args": {"group_id": "q"}, "detokenize": False, "output_kind": 2}  # fmt: skip
        body = {"request_id": "mine", "token_ids": PROMPT, "sampling_params": params, "cache_salt": "v1", "priority": 0}
        answer = await post(server, "/inference/v1/generate", body)
        assert answer["request_id"] == "generate-tokens-mine"
        assert answer["usage"]["prompt_tokens"] == 3
        assert await groups(server) == {"q": 2}
        for index, choice in enumerate(answer["choices"]):
            whole("1/q", index, choice["token_ids"])
            assert choice["finish_reason"] in ("stop", "length")
            assert choice["weight_versions"] == [{"version": "initial", "start": 0, "end": len(choice["token_ids"])}]
            content = choice["logprobs"]["content"]
            assert [entry["token_id"] for entry in content] == choice["token_ids"]
            assert all(entry["logprob"] < 0 for entry in content)
        spec = await server.store.spec(GroupId(1, "q"))
        assert spec is not None
        assert spec.seeds == (3, 4)


async def test_vllms_route_streams() -> None:
    async with served(job=long_job(300), held=True) as server:
        body = {"token_ids": PROMPT, "sampling_params": {"logprobs": 0}, "stream": True}
        chunks = await events(server, "/inference/v1/generate", body)
        tokens = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
        whole("1/live-1", 0, tokens)
        assert len(tokens) == 300
        assert len(chunks) > 1
        assert chunks[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.filterwarnings("default")
async def test_vllms_own_models_parse_our_answers() -> None:
    from pydantic import TypeAdapter  # noqa: PLC0415 - with vllm
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse  # noqa: PLC0415 - heavy
    from vllm.entrypoints.openai.completion.protocol import CompletionResponse  # noqa: PLC0415 - heavy
    from vllm.entrypoints.scale_out.token_in_token_out import protocol  # noqa: PLC0415 - heavy

    async with served() as server:
        for params in ({}, {"logprobs": 1}, {"logprobs": 0, "prompt_logprobs": 0}):
            body = {"token_ids": PROMPT, "sampling_params": params | {"max_tokens": 9}, "return_token_ids": True}
            answer = await post(server, "/inference/v1/generate", body)
            read = TypeAdapter(protocol.GenerateResponse).validate_python(answer)
            assert isinstance(read, protocol.GenerateTokensResponse)
            assert read.choices[0].token_ids == answer["choices"][0]["token_ids"]
            versions = read.choices[0].weight_versions
            assert versions is not None
            assert versions[0].version == "initial"
            assert (read.choices[0].logprobs is not None) == bool(params)
            if "prompt_logprobs" in params:
                assert read.prompt_logprobs is not None
                assert [entry and [*entry] for entry in read.prompt_logprobs] == [
                    None,
                    *([token] for token in PROMPT[1:]),
                ]
            else:
                for chunk in await events(server, "/inference/v1/generate", body | {"stream": True}):
                    TypeAdapter(protocol.GenerateStreamResponse).validate_python(chunk)
            text = await post(server, "/inference/v1/generate", body | {"output_mode": "text"})
            TypeAdapter(protocol.GenerateResponse).validate_python(text)
        body = {"prompt": PROMPT, "max_tokens": 5, "logprobs": 1, "return_token_ids": True}
        CompletionResponse.model_validate(await post(server, "/v1/completions", body))
        scored = await post(server, "/v1/completions", body | {"logprobs": 0, "echo": True, "prompt_logprobs": 0})
        logprobs = CompletionResponse.model_validate(scored).choices[0].logprobs
        assert logprobs is not None
        assert logprobs.token_logprobs[0] is None
        body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "top_logprobs": 1}
        chat = await post(server, "/v1/chat/completions", body | {"prompt_logprobs": 0})
        assert ChatCompletionResponse.model_validate(chat).prompt_logprobs is not None


async def test_sglangs_route_gives_tokens_with_log_probabilities() -> None:
    async with served() as server:
        params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_new_tokens": 25, "stop": None,
                  "stop_token_ids": [3], "skip_special_tokens": False, "no_stop_trim": True,
                  "spaces_between_special_tokens": False, "sampling_seed": 9}  # fmt: skip
        body = {"rid": "r1", "input_ids": PROMPT, "sampling_params": params, "return_logprob": True, "stream": False}
        answer = await post(server, "/generate", body)
        meta = answer["meta_info"]
        whole("1/live-1", 0, answer["output_ids"])
        assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
        assert all(entry[0] < 0 and entry[2] is None for entry in meta["output_token_logprobs"])
        assert meta["finish_reason"]["type"] in ("stop", "length")
        assert meta["completion_tokens"] == len(answer["output_ids"])
        assert (meta["prompt_tokens"], meta["weight_version"], meta["id"]) == (3, "initial", "r1")


async def test_a_list_of_prompts_gives_a_list_of_answers() -> None:
    async with served() as server:
        body = {
            "input_ids": [[1], [2], [1]],
            "sampling_params": {"max_new_tokens": 5, "custom_params": {"group_id": "g"}},
        }
        answers = await post(server, "/generate", body)
        assert len(answers) == 3
        assert await groups(server) == {"g": 2, "g-2": 1}
        several = await post(server, "/generate", {"text": "ab", "sampling_params": {"n": 2, "max_new_tokens": 5}})
        assert len(several) == 2


async def test_sglangs_stream_holds_the_whole_response_each_time() -> None:
    async with served(job=long_job(300), held=True) as server:
        chunks = await events(server, "/generate", {"input_ids": PROMPT, "stream": True, "return_logprob": True})
        lengths = [len(chunk["output_ids"]) for chunk in chunks]
        assert lengths == sorted(lengths)
        assert lengths[-1] == 300 == len(chunks[-1]["meta_info"]["output_token_logprobs"])
        assert chunks[0]["meta_info"]["finish_reason"] is None
        assert chunks[-1]["meta_info"]["finish_reason"] == {"type": "length", "length": 300}


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_ids": [1], "text": "a"},
        {},
        {"input_ids": [1], "image_data": "x"},
        {"input_ids": [1], "lora_id": "x"},
        {"input_ids": [1], "top_logprobs_num": 2},
        {"input_ids": [1], "return_logprob": True, "top_logprobs_num": 21},
        {"input_ids": [1], "sampling_params": {"frequency_penalty": 1.0}},
        {"input_ids": [1], "sampling_params": {"json_schema": "{}"}},
        {"input_ids": [[1], [2]], "rid": ["a"]},
        {"input_ids": [[1], [2]], "stream": True},
        {"input_ids": [-1]},
        {"input_ids": "a"},
    ],
)
async def test_unsupported_fields_of_sglangs_route_are_refused(wrong: dict[str, Any]) -> None:
    async with Served() as server:
        assert (await post(server, "/generate", wrong, status=400))["error"]["message"]


@pytest.mark.parametrize("all_of_them", [False, True])
async def test_an_aborted_request_returns_its_tokens_so_far(all_of_them: bool) -> None:
    async with served(job=long_job()) as server:
        calls = [
            asyncio.create_task(post(server, "/generate", {"rid": rid, "input_ids": PROMPT, "return_logprob": True}))
            for rid in ("a", "b")
        ]
        await running(server, 2)
        assert await get(server, "/flush_cache", status=400)
        await post(server, "/abort_request", {"abort_all": True} if all_of_them else {"rid": "a"})
        first = await calls[0]
        assert first["meta_info"]["finish_reason"]["type"] == "abort"
        assert len(first["output_ids"]) == len(first["meta_info"]["output_token_logprobs"])
        if not all_of_them:
            loads = await get(server, "/v1/loads?include=core")
            assert loads["loads"][0]["num_total_reqs"] == 1
            await post(server, "/abort_request", {"rid": "b"})
        assert (await calls[1])["meta_info"]["finish_reason"]["type"] == "abort"
        assert "flushed" in await get(server, "/flush_cache")


async def test_vllms_aborts_find_requests_by_either_id() -> None:
    async with served(job=long_job()) as server, client_of(server) as client:
        calls: list[asyncio.Task[Any]] = []
        for rid in ("a", "b"):
            body = {"request_id": rid, "token_ids": PROMPT}
            calls.append(asyncio.create_task(post(server, "/inference/v1/generate", body)))
            await running(server, len(calls))
        stock = asyncio.create_task(
            client.completions.create(model="none", prompt=[9], extra_headers={"X-Request-Id": "c"})
        )
        await running(server, 3)
        ended = await post(server, "/inference/v1/abort_requests", {"request_ids": ["generate-tokens-a", "nobody"]})
        assert ended["aborted"] == 1
        choice = (await calls[0])["choices"][0]
        assert choice["finish_reason"] == "abort"
        whole("1/live-1", 0, choice["token_ids"])
        await post(server, "/abort_requests", {"request_ids": ["b", "cmpl-c"]})
        assert (await calls[1])["choices"][0]["finish_reason"] == "abort"
        assert (await stock).choices[0].finish_reason == "abort"
        await all_ended(server)
        assert await post(server, "/inference/v1/abort_requests", {}, status=400)


async def test_the_server_reports_its_health() -> None:
    async with Served() as server:
        assert await get(server, "/health") == ""
        assert (await get(server, "/health_generate", status=503))["error"]["code"] == 503
        server.start_worker()
        while (await server.http.get("/health_generate")).status_code != 200:
            await asyncio.sleep(0.02)
        for path in ("/model_info", "/get_model_info", "/server_info", "/get_server_info"):
            answer = await get(server, path)
            assert (answer["model_path"], answer["weight_version"], answer["is_generation"]) == (
                "none",
                "initial",
                True,
            )
        assert await get(server, "/get_weight_version") == {"weight_version": "initial"}
        assert await get(server, "/weight_info") == {"weight_version": "initial"}
        assert await get(server, "/get_world_size") == {"world_size": 2}
        assert (await get(server, "/workers"))["workers"][0]["url"] == server.url
        assert await get(server, "/list_workers") == {"urls": [server.url]}
        assert await post(server, "/reset_prefix_cache") == {"success": True}


async def test_no_route_answers_without_a_token() -> None:
    async with Served() as server, server.client(None) as stranger:
        for route in server.app.routes:
            path, methods = str(getattr(route, "path", "")), getattr(route, "methods", None) or {"GET"}
            if path in ("/healthz", "/readyz", "/health", "/ping", "/liveness") or "{" in path:
                continue
            if path.startswith("/page"):  # tests/api/page tests the page's own access control
                continue
            answer = await stranger.request(next(iter(methods)), path, json={})
            assert answer.status_code == 401, path


async def events(server: Served, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, up to its end mark; releases the held engines after the first event."""
    async with server.http.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        lines: list[str] = []
        async for line in answer.aiter_lines():
            server.release()
            lines += [line.removeprefix("data: ")] if line else []
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
