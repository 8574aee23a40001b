"""The stock OpenAI client against our server: completions, streams, groups, aborts."""

import asyncio
from typing import Any

import openai
import pytest

from openseer_api.compat.live.sampling import sampling_of
from openseer_api.compat.openai.wire import CompletionRequest
from openseer_core.ids import GroupId
from openseer_core.manifest.job import Sampling
from openseer_core.tokens import pack_tokens
from openseer_worker.scripted.text import scripted_tokens
from tests.api.compat.stories import PROMPT, all_ended, client_of, groups, long_job, post, running, whole
from tests.api.served import Served, served, serving_job


async def test_a_completion_has_tokens_and_their_log_probabilities() -> None:
    async with served() as server, client_of(server) as client:
        answer = await client.completions.create(
            model="none", prompt=PROMPT, max_tokens=12, logprobs=1, extra_body={"return_token_ids": True}
        )
        choice: Any = answer.choices[0]
        whole("1/live-1", 0, choice.token_ids)
        assert choice.finish_reason in ("stop", "length")
        assert answer.usage is not None
        assert len(choice.token_ids) == answer.usage.completion_tokens <= 12
        assert answer.usage.prompt_tokens == 3
        assert choice.logprobs.tokens == [f"token_id:{token}" for token in choice.token_ids]
        assert all(value < 0 for value in choice.logprobs.token_logprobs)
        assert choice.prompt_token_ids == PROMPT
        assert choice.weight_versions == [{"version": "initial", "start": 0, "end": len(choice.token_ids)}]


async def test_n_responses_of_one_call_are_one_group() -> None:
    async with served() as server, client_of(server) as client:
        answer = await client.completions.create(
            model="none", prompt=PROMPT, n=4, max_tokens=30, seed=1, extra_body={"return_token_ids": True}
        )
        assert await groups(server) == {"live-1": 4}
        for index, choice in enumerate(answer.choices):
            assert choice.index == index
            whole("1/live-1", index, choice.token_ids)  # type: ignore[attr-defined]
        spec = await server.store.spec(GroupId(1, "live-1"))
        assert spec is not None
        assert spec.seeds == (1, 2, 3, 4)
        assert server.context.counts == {
            "compatible_requests": 4, "compatible_grouped": 4, "compatible_recognised": 0
        }  # fmt: skip


async def test_several_prompts_are_several_groups() -> None:
    async with served() as server, client_of(server) as client:
        answer = await client.completions.create(
            model="none", prompt=[[1, 2], [3, 4]], n=2, max_tokens=5, extra_body={"return_token_ids": True}
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.prompt_token_ids for choice in answer.choices] == [[1, 2], [1, 2], [3, 4], [3, 4]]  # type: ignore[attr-defined]
        assert await groups(server) == {"live-1": 2, "live-2": 2}


async def test_a_text_prompt_and_a_chat_are_rendered_by_the_model() -> None:
    async with served() as server, client_of(server) as client:
        await client.completions.create(model="none", prompt="ab", max_tokens=3)
        spec = await server.store.spec(GroupId(1, "live-1"))
        assert spec is not None
        assert spec.prompt == pack_tokens([97, 98])
        answer = await client.chat.completions.create(
            model="none", messages=[{"role": "user", "content": "cd"}], max_completion_tokens=6, logprobs=True
        )
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].logprobs is not None
        assert len(answer.choices[0].logprobs.content or []) == answer.usage.completion_tokens  # type: ignore[union-attr]
        spec = await server.store.spec(GroupId(1, "live-2"))
        assert spec is not None
        assert spec.prompt == pack_tokens([99, 100])


async def test_a_stream_has_each_token_at_once_and_ends_with_counts() -> None:
    job = serving_job(sampling={"maxTokens": 400, "minTokens": 300})
    async with served(job=job, held=True) as server, client_of(server) as client:
        stream = await client.completions.create(
            model="none", prompt=PROMPT, n=2, stream=True, stream_options={"include_usage": True},
            logprobs=0, extra_body={"return_token_ids": True},
        )  # fmt: skip
        tokens: dict[int, list[int]] = {0: [], 1: []}
        ends: dict[int, str] = {}
        prompts: dict[int, list[list[int]]] = {0: [], 1: []}
        offsets: dict[int, list[int]] = {0: [], 1: []}
        chunks = total = 0
        async for chunk in stream:
            server.release()
            total = chunk.usage.completion_tokens if chunk.usage else total
            for choice in chunk.choices:
                chunks += 1
                tokens[choice.index] += choice.token_ids  # type: ignore[attr-defined]
                assert choice.logprobs is not None
                assert len(choice.logprobs.token_logprobs or []) == len(choice.token_ids)  # type: ignore[attr-defined]
                offsets[choice.index] += choice.logprobs.text_offset or []
                if hasattr(choice, "prompt_token_ids"):
                    prompts[choice.index].append(choice.prompt_token_ids)  # type: ignore[attr-defined]
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
        for index, found in tokens.items():
            whole("1/live-1", index, found)
            assert len(found) >= 300
        # The role comes once, in the first chunk; offsets continue from chunk to chunk.
        assert prompts == {0: [PROMPT], 1: [PROMPT]}
        assert all(found == sorted(set(found)) for found in offsets.values())
        assert chunks > 2  # the first chunk is sent before the ends
        assert set(ends) == {0, 1}
        assert total == sum(map(len, tokens.values()))


async def test_a_chat_streams_too() -> None:
    async with served() as server, client_of(server) as client:
        stream = await client.chat.completions.create(
            model="none",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=8,
            stream=True,
            extra_body={"return_token_ids": True},
        )
        chunks = [chunk async for chunk in stream]
        assert [hasattr(chunk, "prompt_token_ids") for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")


async def test_concurrent_requests_of_one_prompt_form_one_group() -> None:
    async with served() as server, client_of(server) as client:

        async def complete(**more: Any) -> list[int]:
            body = {"return_token_ids": True} | more
            answer: Any = await client.completions.create(model="none", prompt=PROMPT, max_tokens=30, extra_body=body)
            return answer.choices[0].token_ids

        found = await asyncio.gather(*(complete(seed=number) for number in range(8)), complete(temperature=0.5))
        assert await groups(server) == {"live-1": 8, "live-2": 1}
        expected = [scripted_tokens("1/live-1", index, 0, 30) for index in range(8)]
        for tokens in found[:8]:
            assert any(text.startswith(pack_tokens(tokens)) for text in expected)
        spec = await server.store.spec(GroupId(1, "live-1"))
        assert spec is not None
        assert sorted(spec.seeds) == list(range(8))  # type: ignore[type-var]
        assert server.context.counts == {
            "compatible_requests": 9, "compatible_grouped": 8, "compatible_recognised": 8
        }  # fmt: skip
        text = (await server.http.get("/metrics")).text
        assert 'openseer_api_compatible_recognised_total{job="served",namespace="default"} 8.0' in text


async def test_only_requests_with_its_name_and_prompt_join_a_named_group() -> None:
    async with served() as server, client_of(server) as client:

        async def complete(prompt: list[int], **options: Any) -> None:
            await client.completions.create(model="none", prompt=prompt, max_tokens=5, **options)

        await asyncio.gather(
            complete([1], extra_body={"group_id": "q-1"}),
            complete([1], extra_body={"vllm_xargs": {"group_id": "q-1"}}),
            complete([1], extra_headers={"X-Openseer-Group": "q-1"}),
            complete([1]),
        )
        await complete([2], extra_body={"group_id": "q-1"})
        assert await groups(server) == {"q-1": 3, "live-1": 1, "q-1-2": 1}
        assert server.context.counts["compatible_recognised"] == 0
        assert server.context.counts["compatible_grouped"] == 4


async def test_a_disconnected_client_frees_its_slot() -> None:
    async with served(job=long_job()) as server, client_of(server) as client:
        call = asyncio.create_task(client.completions.create(model="none", prompt=PROMPT, n=3))
        await running(server)
        call.cancel()
        await all_ended(server)
        progress = (await server.store.batches())[0].progress
        assert progress.aborted == 3


async def test_a_closed_stream_frees_its_slot() -> None:
    async with served(job=long_job()) as server, client_of(server) as client:
        stream = await client.completions.create(model="none", prompt=PROMPT, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await all_ended(server)


async def test_unsupported_parameters_are_refused_unless_they_are_neutral() -> None:
    async with served() as server, client_of(server) as client:
        await client.completions.create(
            model="none", prompt=PROMPT, max_tokens=3, presence_penalty=0.0, frequency_penalty=0, logit_bias={},
            best_of=1, extra_body={"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0, "skip_special_tokens": False},
        )  # fmt: skip
        for wrong in (
            {"presence_penalty": 0.5}, {"frequency_penalty": -1}, {"logit_bias": {"5": 1.0}}, {"best_of": 4},
            {"suffix": "x"}, {"logprobs": 21}, {"temperature": 9.0}, {"extra_body": {"repetition_penalty": 1.2}},
            {"extra_body": {"structured_outputs": {"regex": "a"}}}, {"n": 0}, {"max_tokens": 0},
            {"stream_options": {"include_usage": True}},
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
        ):  # fmt: skip
            options: dict[str, Any] = wrong
            with pytest.raises(openai.BadRequestError) as caught:
                await client.completions.create(model="none", prompt=PROMPT, **options)
            assert caught.value.body["type"] == "invalid_request_error"  # type: ignore[index]
        with pytest.raises(openai.BadRequestError, match="no tokens"):
            await client.completions.create(model="none", prompt="")


async def test_top_logprobs_need_logprobs() -> None:
    async with served() as server:
        body = {"messages": [{"role": "user", "content": "hi"}], "top_logprobs": 1}
        message = (await post(server, "/v1/chat/completions", body, status=400))["error"]["message"]
        assert "top_logprobs: found 1 without logprobs: true" in message
        await post(server, "/v1/chat/completions", body | {"logprobs": True, "max_tokens": 1})


async def test_an_empty_list_of_stops_and_a_seed_of_minus_one_are_none() -> None:
    own = Sampling(stop=("a",), stop_token_ids=(7,))
    fields = CompletionRequest.model_validate({"prompt": PROMPT, "stop": [], "stop_token_ids": [], "seed": -1})
    sampling = sampling_of(own, fields, logprobs=False)
    assert (sampling.stop, sampling.stop_token_ids, fields.effective_seed) == ((), (), None)
    unset = CompletionRequest.model_validate({"prompt": PROMPT, "stop": None})
    assert sampling_of(own, unset, logprobs=False).stop_token_ids == (7,)


async def test_an_unknown_model_is_not_found() -> None:
    model = {"path": "none", "engine": "scripted", "servedNames": ["org/model"]}
    async with served(job=serving_job(model=model)) as server, client_of(server) as client:
        assert [card.id async for card in client.models.list()] == ["none", "org/model", "served"]
        for name in ("none", "org/model", "served", ""):
            answer = await client.completions.create(model=name, prompt=PROMPT, max_tokens=1)
            assert answer.model == (name or "none")
        chat: Any = {"model": "my-lora", "messages": [{"role": "user", "content": "hi"}]}
        creates: list[tuple[Any, dict[str, Any]]] = [
            (client.completions.create, {"model": "my-lora", "prompt": PROMPT}),
            (client.chat.completions.create, chat),
        ]
        for create, fields in creates:
            with pytest.raises(openai.NotFoundError, match="found my-lora; the model does not exist here"):
                await create(**fields)
        body = {"model": "my-lora", "token_ids": PROMPT}
        message = (await post(server, "/inference/v1/generate", body, status=404))["error"]["message"]
        assert "allowed: none, org/model, served" in message


async def test_a_wrong_key_is_refused_in_the_protocols_form() -> None:
    async with Served() as server:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
        assert caught.value.body["code"] == 401  # type: ignore[index]
        await client.close()


async def test_the_model_is_listed() -> None:
    async with Served() as server, client_of(server) as client:
        assert [model.id async for model in client.models.list()] == ["none", "served"]
