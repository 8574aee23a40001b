"""Log-probabilities of prompts on the compatible routes, in the form of each protocol."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from openseer_core.queue.batch import Entry
from openseer_core.queue.messages import Result
from openseer_core.tokens import pack_logprobs, pack_tokens, unpack_logprobs
from openseer_store.memory import MemoryStore
from openseer_worker.scripted.text import scripted_logprobs
from tests.api.compat.stories import PROMPT, all_ended, client_of, groups, post
from tests.api.served import Served, served, serving_job

CHAT = [{"role": "user", "content": "hi"}]


def scores(start: int, stop: int) -> list[float]:
    """The scripted engine's scores of the tokens at these positions, the same for any prompt."""
    return unpack_logprobs(scripted_logprobs("", 0, start, stop))


def told(tokens: list[int]) -> list[dict[str, Any] | None]:
    """The scores of a whole prompt in vLLM's form."""
    values = [{"logprob": value, "rank": None, "decoded_token": None} for value in scores(1, len(tokens))]
    return [None, *({str(token): value} for token, value in zip(tokens[1:], values, strict=True))]


async def test_a_teacher_scores_prompts_and_samples_nothing() -> None:
    async with served() as server:
        body = {"prompt": [PROMPT, [9, *PROMPT]], "max_tokens": 0, "prompt_logprobs": 0, "n": 2}
        answer = await post(server, "/v1/completions", body)
        assert [choice["prompt_logprobs"] for choice in answer["choices"]] == [
            *[told(PROMPT)] * 2,
            *[told([9, *PROMPT])] * 2,
        ]
        assert {(choice["text"], choice["finish_reason"]) for choice in answer["choices"]} == {("", "length")}
        assert answer["choices"][0]["weight_versions"] == []  # of the response, which has no token
        assert answer["choices"][0]["prompt_weight_version"] == "initial"
        assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}
        assert await groups(server) == {"live-1": 1, "live-2": 1}


async def test_responses_are_sampled_beside_the_scores_of_their_prompt() -> None:
    async with served() as server:
        params = {"n": 2, "max_tokens": 6, "temperature": 0.7, "seed": 1, "prompt_logprobs": 0}
        answer = await post(server, "/inference/v1/generate", {"token_ids": PROMPT, "sampling_params": params})
        assert answer["prompt_logprobs"] == told(PROMPT)
        assert [0 < len(choice["token_ids"]) <= 6 for choice in answer["choices"]] == [True, True]
        body = {"messages": CHAT, "prompt_logprobs": 0, "max_tokens": 3, "return_token_ids": True}
        answer = await post(server, "/v1/chat/completions", body)
        assert answer["prompt_logprobs"] == told(answer["prompt_token_ids"])
        assert "prompt_logprobs" not in answer["choices"][0]
        body = {"prompt": PROMPT, "max_tokens": 4}
        assert "prompt_logprobs" not in (await post(server, "/v1/completions", body))["choices"][0]


async def test_an_echo_has_the_prompt_with_its_log_probabilities() -> None:
    async with served() as server, client_of(server) as client:
        for most in (0, 5):
            answer = await client.completions.create(
                model="none", prompt=PROMPT, echo=True, logprobs=0, max_tokens=most
            )
            [choice] = answer.choices
            assert choice.logprobs is not None
            assert choice.logprobs.tokens is not None
            assert choice.logprobs.token_logprobs is not None
            assert choice.logprobs.top_logprobs is not None
            assert choice.logprobs.tokens[:3] == ["token_id:5", "token_id:6", "token_id:7"]
            assert choice.logprobs.token_logprobs[:3] == [None, *scores(1, 3)]
            assert choice.logprobs.top_logprobs[:2] == [None, {"token_id:6": scores(1, 2)[0]}]
            assert answer.usage is not None
            assert len(choice.logprobs.tokens) == 3 + answer.usage.completion_tokens
            assert (answer.usage.completion_tokens > 0) is (most > 0)
        echoed = await client.completions.create(model="none", prompt="ab", echo=True, max_tokens=5)
        assert echoed.choices[0].text.startswith("ab")


def likely(token: int, value: float, top: int) -> dict[str, dict[str, Any]]:
    """The scripted engine's likeliest tokens of one position in vLLM's form: the token itself, then the next ids."""
    return {
        str(token + place): {"logprob": value * (1 + place), "rank": place + 1, "decoded_token": None}
        for place in range(top)
    }


async def test_a_teacher_returns_the_likeliest_tokens_of_a_prompt() -> None:
    async with served() as server:
        body = {"prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": 2}
        [choice] = (await post(server, "/v1/completions", body))["choices"]
        expected = [likely(token, value, 2) for token, value in zip(PROMPT[1:], scores(1, 3), strict=True)]
        assert choice["prompt_logprobs"] == [None, *expected]
        params = {"max_tokens": 3, "logprobs": 3, "prompt_logprobs": 1}
        answer = await post(server, "/inference/v1/generate", {"token_ids": PROMPT, "sampling_params": params})
        assert [entry and len(entry) for entry in answer["prompt_logprobs"]] == [None, 1, 1]
        [choice] = answer["choices"]
        for token, entry in zip(choice["token_ids"], choice["logprobs"]["content"], strict=True):
            assert (entry["token_id"], entry["rank"]) == (token, 1)
            assert [other["token_id"] for other in entry["top_logprobs"]] == [token, token + 1, token + 2]
            assert [other["rank"] for other in entry["top_logprobs"]] == [1, 2, 3]


async def test_an_echo_has_as_many_likeliest_tokens_as_the_response() -> None:
    async with served() as server:
        body = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 2}
        [choice] = (await post(server, "/v1/completions", body))["choices"]
        assert [entry and len(entry) for entry in choice["prompt_logprobs"]] == [None, 2, 2]
        [choice] = (await post(server, "/v1/completions", {**body, "prompt_logprobs": 1}))["choices"]
        assert [entry and len(entry) for entry in choice["prompt_logprobs"]] == [None, 1, 1]


class UnlikelyTokens(MemoryStore):
    """A store whose responses have tokens of rank 7; tokens 1 and 2 are the likeliest."""

    async def results(self, batch: int, cursor: int, limit: int, wait_seconds: float = 0.0) -> list[Entry]:
        found = await super().results(batch, cursor, limit, wait_seconds)
        pairs = [pack_tokens([token]) + pack_logprobs([-float(token)]) for token in (1, 2)]
        record = pack_logprobs([-9.0]) + pack_tokens([7]) + b"".join(pairs)
        return [
            replace(entry, logprobs=record * (len(entry.tokens) // 4)) if isinstance(entry, Result) else entry
            for entry in found
        ]


async def test_vllms_route_counts_the_token_itself_among_the_likeliest() -> None:
    async with served(store=UnlikelyTokens()) as server:
        body = {"token_ids": PROMPT, "sampling_params": {"logprobs": 2, "max_tokens": 3}}
        [choice] = (await post(server, "/inference/v1/generate", body))["choices"]
        for token, entry in zip(choice["token_ids"], choice["logprobs"]["content"], strict=True):
            own = {"token_id": token, "logprob": -9.0, "rank": 7}
            assert entry == own | {"top_logprobs": [own, {"token_id": 1, "logprob": -1.0, "rank": 1}]}
        body = {"prompt": PROMPT, "logprobs": 2, "max_tokens": 1}
        [choice] = (await post(server, "/v1/completions", body))["choices"]
        [place] = choice["logprobs"]["top_logprobs"]
        assert list(place.values()) == [-9.0, -1.0, -2.0]


async def test_openais_clients_read_the_likeliest_tokens() -> None:
    async with served() as server, client_of(server) as client:
        answer = await client.completions.create(model="none", prompt=PROMPT, echo=True, logprobs=2, max_tokens=4)
        found = answer.choices[0].logprobs
        assert found is not None
        assert found.top_logprobs is not None
        assert [entry and len(entry) for entry in found.top_logprobs[:3]] == [None, 2, 2]  # type: ignore[comparison-overlap]
        assert {len(entry) for entry in found.top_logprobs[1:]} == {2}
        chat = await client.chat.completions.create(
            model="none", messages=[{"role": "user", "content": "hi"}], max_tokens=4, logprobs=True, top_logprobs=3
        )
        content = (chat.choices[0].logprobs and chat.choices[0].logprobs.content) or []
        assert {len(entry.top_logprobs) for entry in content} == {3}
        assert all(entry.top_logprobs[0].token == entry.token for entry in content)
        streamed = await client.chat.completions.create(
            model="none",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=4,
            logprobs=True,
            top_logprobs=3,
            stream=True,
        )
        pieces = [piece.choices[0].logprobs async for piece in streamed if piece.choices]
        entries = [entry for piece in pieces if piece for entry in piece.content or []]
        assert {len(entry.top_logprobs) for entry in entries} == {3}


async def test_echo_and_prompt_logprobs_have_each_as_many_likeliest_tokens() -> None:
    async with served() as server:
        body = {"prompt": PROMPT, "echo": True, "logprobs": 1, "prompt_logprobs": 3, "max_tokens": 2}
        [choice] = (await post(server, "/v1/completions", body))["choices"]
        assert [entry and len(entry) for entry in choice["prompt_logprobs"]] == [None, 3, 3]
        assert [entry and len(entry) for entry in choice["logprobs"]["top_logprobs"]][:3] == [None, 1, 1]


async def test_each_prompt_of_sglangs_has_its_own_number_of_likeliest_tokens() -> None:
    async with served() as server:
        params = {"max_new_tokens": 2}
        body = {"input_ids": [PROMPT, PROMPT], "sampling_params": params, "return_logprob": True}
        first, second = await post(server, "/generate", body | {"top_logprobs_num": [0, 2]})
        assert "output_top_logprobs" not in first["meta_info"]
        assert {len(of) for of in second["meta_info"]["output_top_logprobs"]} == {2}


async def test_sglangs_clients_read_the_likeliest_tokens() -> None:
    async with served() as server:
        body: dict[str, Any] = {
            "input_ids": PROMPT,
            "sampling_params": {"max_new_tokens": 3},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": 2,
        }
        meta = (await post(server, "/generate", body))["meta_info"]
        values = scores(1, 3)
        assert meta["input_top_logprobs"] == [
            None,
            *(
                [[value, token, None], [2 * value, token + 1, None]]
                for token, value in zip([6, 7], values, strict=True)
            ),
        ]
        assert [[entry[1] for entry in of] for of in meta["output_top_logprobs"]] == [
            [token, token + 1] for _, token, _ in meta["output_token_logprobs"]
        ]


async def test_sglangs_input_log_probabilities_begin_with_a_token_that_has_none() -> None:
    async with served() as server:
        body: dict[str, Any] = {
            "input_ids": [[5, 6, 7, 8], [9, 8, 7, 6, 5], [1, 2]],
            "sampling_params": [{"max_new_tokens": 0}, {"max_new_tokens": 3}, {"max_new_tokens": 3}],
            "return_logprob": True,
            "logprob_start_len": [0, 2, -1],
        }
        first, second, third = await post(server, "/generate", body)
        values = [None, *scores(1, 4)]
        expected = [[value, token, None] for value, token in zip(values, [5, 6, 7, 8], strict=True)]
        assert first["meta_info"]["input_token_logprobs"] == expected
        assert first["meta_info"]["input_weight_version"] == "initial"
        assert (first["output_ids"], first["meta_info"]["output_token_logprobs"]) == ([], [])
        assert first["meta_info"]["finish_reason"] == {"type": "length", "length": 0}
        assert second["meta_info"]["input_token_logprobs"] == [
            [None, 7, None],
            *([value, token, None] for value, token in zip(scores(3, 5), [6, 5], strict=True)),
        ]
        assert len(second["meta_info"]["output_token_logprobs"]) == len(second["output_ids"]) > 0
        assert third["meta_info"]["input_token_logprobs"] == []


async def test_a_rendered_prompt_contains_the_request_for_scores() -> None:
    async with served() as server:
        body = {"prompt": PROMPT, "echo": True, "logprobs": 0, "max_tokens": 0}
        [rendered] = await post(server, "/v1/completions/render", body)
        answer = await post(server, "/inference/v1/generate", rendered)
        assert answer["prompt_logprobs"] == told(PROMPT)
        assert answer["choices"][0]["token_ids"] == []


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        (
            "/v1/completions",
            {"prompt": PROMPT, "prompt_logprobs": 21},
            "prompt_logprobs: found 21",
        ),
        ("/v1/completions", {"prompt": PROMPT, "prompt_logprobs": -1}, "prompt_logprobs: found -1"),
        ("/v1/completions", {"prompt": PROMPT, "prompt_logprobs": 0, "stream": True}, "remove stream"),
        ("/v1/completions", {"prompt": PROMPT, "echo": True, "stream": True}, "echo: found true with stream"),
        ("/v1/completions", {"prompt": PROMPT, "echo": True, "max_tokens": 0}, "max_tokens: found 0"),
        (
            "/v1/completions",
            {"prompt": [5], "prompt_logprobs": 0},
            "found 1 tokens, needed for scores",
        ),
        ("/v1/chat/completions", {"messages": CHAT, "prompt_logprobs": 21}, "prompt_logprobs: found 21"),
        ("/generate", {"input_ids": PROMPT, "top_logprobs_num": 2}, "top_logprobs_num: found 2 without return_logprob"),
        ("/v1/chat/completions", {"messages": CHAT, "echo": True}, "echo: found True, which openseer refuses"),
        (
            "/inference/v1/generate",
            {"token_ids": PROMPT, "sampling_params": {"prompt_logprobs": 0}, "stream": True},
            "sampling_params.prompt_logprobs: found 0 with stream: true",
        ),
        (
            "/generate",
            {"input_ids": PROMPT, "return_logprob": True, "logprob_start_len": 0, "stream": True},
            "logprob_start_len: found 0 with stream: true",
        ),
        (
            "/generate",
            {"input_ids": PROMPT, "return_logprob": True, "logprob_start_len": 2},
            "input_ids: found 3 tokens, needed for scores from place 3 on: 4 or more",
        ),
        (
            "/generate",
            {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 0}},
            "max_new_tokens: found 0, allowed: at least 1; 0 only with",
        ),
        ("/generate", {"input_ids": PROMPT, "token_ids_logprob": [4]}, "the likeliest ones, not of tokens by name"),
    ],
)
async def test_unsupported_requests_for_scores_are_refused(path: str, body: dict[str, Any], problem: str) -> None:
    async with Served() as server:
        assert problem in (await post(server, path, body, status=400))["error"]["message"]


async def test_a_job_without_log_probabilities_scores_no_prompt() -> None:
    async with Served(job=serving_job(sampling={"logprobs": "none"})) as server:
        answer = await post(server, "/v1/completions", {"prompt": PROMPT, "prompt_logprobs": 0}, status=400)
        assert "set spec.sampling.logprobs" in answer["error"]["message"]


async def test_an_abort_ends_waiting_scores_with_their_responses() -> None:
    slow = {"path": "none", "engine": "scripted", "scripted": {"prefillTokensPerSecond": 0.001}}
    async with served(job=serving_job(model=slow)) as server:
        body = {"prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": 0, "request_id": "r"}
        call = asyncio.create_task(post(server, "/v1/completions", body))
        while not (await post(server, "/inference/v1/abort_requests", {"request_ids": ["r"]}))["aborted"]:
            await asyncio.sleep(0.02)
        [choice] = (await call)["choices"]
        assert (choice["finish_reason"], choice["prompt_logprobs"]) == ("abort", None)
        await all_ended(server)
