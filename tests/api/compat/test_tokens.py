"""Text to token ids and back over HTTP: the rendered tokens are those that the generating routes send to the fleet."""

from typing import Any

import pytest

from openseer_core.manifest.job import Model
from openseer_text.rendering import TextCodec, open_codec
from tests.api.compat.stories import post
from tests.api.compat.test_fields import TOOL, use
from tests.api.served import Served, served
from tests.text.tokenizers_of_tests import BOS, END, byte_level, save

HI: list[dict[str, str]] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    """The codec of a tokenizer that puts BOS before every text."""
    return open_codec(Model(path=str(save(byte_level(opens=True), tmp_path_factory.mktemp("model")))))


async def read(server: Served, tokens: list[int], **fields: Any) -> str:
    return str((await post(server, "/detokenize", {"tokens": tokens, **fields}))["prompt"])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": "a"}, f"{BOS}a"),
        ({"prompt": "a", "add_special_tokens": False}, "a"),
        ({"messages": HI}, f"{BOS}[hi]>"),
        ({"messages": HI, "add_generation_prompt": False, "continue_final_message": True}, f"{BOS}[hi"),
        ({"messages": HI, "tools": [TOOL], "chat_template_kwargs": {"mood": "glad"}}, f"{BOS}[hi](glad)<look>>"),
    ],
)
async def test_a_rendered_prompt_has_the_tokens_that_the_fleet_gets(
    codec: TextCodec, body: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Served() as server:
        use(server, codec, monkeypatch)
        answer = await post(server, "/tokenize", body)
        assert answer["count"] == len(answer["tokens"])
        assert answer["max_model_len"] > 0
        assert await read(server, answer["tokens"]) == text


async def test_special_tokens_are_left_out_of_a_text_on_request(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Served() as server:
        use(server, codec, monkeypatch)
        tokens = (await post(server, "/tokenize", {"prompt": f"a{END}"}))["tokens"]
        assert await read(server, tokens) == f"{BOS}a{END}"
        assert await read(server, tokens, skip_special_tokens=True) == "a"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/tokenize", {}, "exactly one of prompt and messages"),
        ("/tokenize", {"prompt": "a", "messages": HI}, "exactly one of prompt and messages"),
        ("/tokenize", {"prompt": "a", "return_token_strs": True}, "return_token_strs: found True"),
        ("/tokenize", {"messages": HI, "chat_template": "{{ 1 }}"}, "chat_template: found"),
        ("/detokenize", {"tokens": []}, "tokens: "),
        ("/detokenize", {"tokens": [2**40]}, "tokens[0]: found token"),
        ("/v1/chat/completions/render", {"messages": HI, "logit_bias": {"1": 1}}, "logit_bias: found"),
    ],
)
async def test_invalid_bodies_of_the_token_routes_are_refused_by_field(
    codec: TextCodec, path: str, body: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Served() as server:
        use(server, codec, monkeypatch)
        assert said in (await post(server, path, body, status=400))["error"]["message"]
        await post(server, path, {**body, "model": "other"}, status=400 if body.get("tokens") != [2**40] else 404)


async def test_the_scripted_engines_tokens_have_no_text() -> None:
    async with Served() as server:
        assert "have no text" in (await post(server, "/detokenize", {"tokens": [5]}, status=400))["error"]["message"]


async def test_a_rendered_chat_generates_the_same_as_the_chat_route(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        use(server, codec, monkeypatch)
        chat = {"messages": HI, "max_completion_tokens": 7, "temperature": 0.5, "seed": 3, "logprobs": True}
        rendered = await post(server, "/v1/chat/completions/render", chat)
        assert rendered["request_id"].startswith("chatcmpl-")
        assert rendered["sampling_params"] == {"temperature": 0.5, "seed": 3, "max_tokens": 7, "logprobs": 0}
        whole = await post(server, "/v1/chat/completions", chat | {"return_token_ids": True})
        assert rendered["token_ids"] == whole["prompt_token_ids"]
        answer = await post(server, "/inference/v1/generate", rendered)
        assert len(answer["choices"][0]["token_ids"]) <= 7


async def test_each_prompt_of_a_completion_is_rendered_to_a_body_of_its_own(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        use(server, codec, monkeypatch)
        body = {"prompt": ["a", "b"], "n": 2, "stop": "x", "request_id": "r", "group_id": "g"}
        first, second = await post(server, "/v1/completions/render", body)
        assert [first["request_id"], second["request_id"]] == ["cmpl-r-0", "cmpl-r-1"]
        assert first["sampling_params"] == {"n": 2, "stop": "x"}
        assert first["group_id"] == "g"
        assert len((await post(server, "/inference/v1/generate", first))["choices"]) == 2


async def test_a_parameter_by_another_protocols_name_is_rendered_by_vllms(
    codec: TextCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Served() as server:
        use(server, codec, monkeypatch)
        body = {"prompt": "a", "max_new_tokens": 9, "min_new_tokens": 2, "sampling_seed": 4, "no_stop_trim": True}
        (rendered,) = await post(server, "/v1/completions/render", body)
        params = {"max_tokens": 9, "min_tokens": 2, "seed": 4, "include_stop_str_in_output": True}
        assert rendered["sampling_params"] == params


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.filterwarnings("default")
async def test_vllms_own_models_parse_rendered_bodies(codec: TextCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest  # noqa: PLC0415 - heavy
    from vllm.entrypoints.serve.tokenize.protocol import (  # noqa: PLC0415 - heavy
        DetokenizeResponse,
        TokenizeResponse,
    )

    async with Served() as server:
        use(server, codec, monkeypatch)
        tokens = TokenizeResponse.model_validate(await post(server, "/tokenize", {"messages": HI})).tokens
        DetokenizeResponse.model_validate(await post(server, "/detokenize", {"tokens": tokens}))
        chat = await post(server, "/v1/chat/completions/render", {"messages": HI, "max_tokens": 3})
        assert GenerateRequest.model_validate(chat).token_ids == tokens
        for entry in await post(server, "/v1/completions/render", {"prompt": "a"}):
            GenerateRequest.model_validate(entry)
