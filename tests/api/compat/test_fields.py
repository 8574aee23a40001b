"""Every field of the protocols is honoured, refused by name, or listed as handled by the fleet."""

from typing import Any

import pytest
from openai.types import completion_create_params as openai_completion
from openai.types.chat import completion_create_params as openai_chat
from pydantic import ValidationError

from openseer_api.compat.live.protocol_model import RefusingModel
from openseer_api.compat.live.refused_fields import THE_FLEETS_OWN
from openseer_api.compat.openai.wire import ChatRequest, CompletionRequest
from openseer_api.compat.sglang.wire import SglangGenerateRequest, SglangSamplingParams
from openseer_api.compat.vllm.generate import VllmGenerateRequest, VllmSamplingParams
from openseer_core.manifest.job import Model
from openseer_core.manifest.prompts import PromptLine
from openseer_text.reading import Reader
from openseer_text.rendering import USUAL, Rendered, RenderOptions, TextCodec, open_codec
from tests.api.compat.stories import post
from tests.api.served import Served, served, serving_job
from tests.text.tokenizers_of_tests import BOS, byte_level, save

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
BODIES: dict[type[RefusingModel], dict[str, Any]] = {
    CompletionRequest: {"prompt": "a"},
    ChatRequest: {"messages": [{"role": "user", "content": "a"}]},
    VllmGenerateRequest: {"token_ids": [1]},
    VllmSamplingParams: {},
    SglangGenerateRequest: {"text": "a"},
    SglangSamplingParams: {},
}
SGLANG = {
    "text", "input_ids", "input_embeds", "image_data", "video_data", "audio_data", "sampling_params", "rid",
    "return_logprob", "logprob_start_len", "top_logprobs_num", "token_ids_logprob", "return_text_in_logprobs", "stream",
    "session_params", "lora_path", "custom_logit_processor", "return_hidden_states", "return_routed_experts",
    "require_reasoning", "background", "priority", "data_parallel_rank", "max_new_tokens", "min_new_tokens", "stop",
    "stop_token_ids", "stop_regex", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "n", "json_schema", "regex", "ebnf", "structural_tag", "ignore_eos", "skip_special_tokens",
    "spaces_between_special_tokens", "no_stop_trim", "custom_params", "stream_interval", "logit_bias", "sampling_seed",
}  # fmt: skip


def known(*bodies: type[RefusingModel]) -> set[str]:
    return {name for body in bodies for name in (*body.model_fields, *body.refused)}


@pytest.mark.parametrize("body", BODIES)
def test_a_refused_field_is_named_unless_its_value_means_off(body: type[RefusingModel]) -> None:
    assert body.refused
    assert not body.refused.keys() & body.model_fields.keys()
    for name, (off, why) in body.refused.items():
        for value in (*off, None):
            body.model_validate(BODIES[body] | {name: value})
        with pytest.raises(ValidationError) as refused:
            body.model_validate(BODIES[body] | {name: ["other"]})
        assert refused.value.errors()[0]["msg"] == f"{name}: found ['other'], which openseer refuses: {why}"


def test_no_field_of_the_installed_openai_client_is_left_out() -> None:
    for params, body in ((openai_chat, ChatRequest), (openai_completion, CompletionRequest)):
        fields = set(params.CompletionCreateParamsBase.__annotations__)
        assert {"model", "temperature"} < fields
        assert sorted(fields - known(body) - THE_FLEETS_OWN - {"stream"}) == [], body.__name__


def test_no_field_of_sglang_is_left_out() -> None:
    assert not SGLANG - known(SglangGenerateRequest, SglangSamplingParams) - THE_FLEETS_OWN


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.filterwarnings("default")
def test_no_field_of_the_installed_vllm_is_left_out() -> None:
    import transformers  # noqa: PLC0415 - heavy

    assert transformers.PreTrainedConfig  # vLLM cannot be the first to import it
    from vllm import SamplingParams  # noqa: PLC0415 - heavy
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415 - heavy
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest as VllmCompletion  # noqa: PLC0415 - heavy
    from vllm.entrypoints.scale_out.token_in_token_out.protocol import GenerateRequest  # noqa: PLC0415 - heavy

    sampling = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    for fields, body in (
        (set(ChatCompletionRequest.model_fields), ChatRequest),
        (set(VllmCompletion.model_fields), CompletionRequest),
        (set(GenerateRequest.model_fields), VllmGenerateRequest),
        (sampling, VllmSamplingParams),
    ):
        assert sorted(fields - known(body) - THE_FLEETS_OWN) == [], body.__name__


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": [1], "suffix": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "echo": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "chat_template": "{{ 1 }}"}),
        ("/inference/v1/generate", {"token_ids": [1], "sampling_params": {"thinking_token_budget": 5}}),
        ("/generate", {"input_ids": [1], "sampling_params": {"stop_regex": "a+"}}),
    ],
)
async def test_a_refused_field_is_answered_with_its_name(path: str, body: dict[str, Any]) -> None:
    async with Served() as server:
        message = (await post(server, path, body, status=400))["error"]["message"]
        refused = ("suffix", "echo", "chat_template", "thinking_token_budget", "stop_regex")
        assert any(f"{name}: found" in message for name in refused)
        assert "which openseer refuses" in message


def extra(path: str, **arguments: Any) -> dict[str, Any]:
    """A body of that route with arguments for logits processors."""
    return {
        "/v1/completions": {"prompt": [1], "max_tokens": 1, "vllm_xargs": arguments},
        "/inference/v1/generate": {"token_ids": [1], "sampling_params": {"max_tokens": 1, "extra_args": arguments}},
        "/generate": {"input_ids": [1], "sampling_params": {"max_new_tokens": 1, "custom_params": arguments}},
    }[path]


@pytest.mark.parametrize("path", ["/v1/completions", "/inference/v1/generate", "/generate"])
async def test_arguments_of_logits_processors_pass_only_where_there_are_none(path: str) -> None:
    model = {"path": "none", "engine": "scripted", "engineArgs": {"logits_processors": ["mine:Processor"]}}
    async with served() as server:
        await post(server, path, extra(path, strength=2, group_id="g"))
        message = (await post(server, path, extra(path, groupid="g"), status=400))["error"]["message"]
        assert "groupid: unknown field; did you mean group_id?" in message
    async with Served(job=serving_job(model=model)) as server:
        message = (await post(server, path, extra(path, strength=2), status=400))["error"]["message"]
        assert "strength: found, but the job's logits processors" in message


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    """The codec of a tokenizer that puts BOS before every text."""
    return open_codec(Model(path=str(save(byte_level(opens=True), tmp_path_factory.mktemp("model")))))


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, f"{BOS}[hi]>"),
        ({"add_special_tokens": True}, f"{BOS}[hi]>"),
        ({"add_generation_prompt": False}, f"{BOS}[hi]"),
        ({"add_generation_prompt": False, "continue_final_message": True}, f"{BOS}[hi"),
        ({"chat_template_kwargs": {"mood": "glad"}}, f"{BOS}[hi](glad)>"),
        ({"reasoning_effort": "low"}, f"{BOS}[hi](low, True)>"),
        ({"reasoning_effort": "none"}, f"{BOS}[hi](none, False)>"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "high"}},
            f"{BOS}[hi](low, False)>",
        ),
        ({"documents": [{"text": "doc"}]}, f"{BOS}[hi]<doc>>"),
        ({"tools": [TOOL], "tool_choice": "none"}, f"{BOS}[hi]<look>>"),
        ({"tools": [], "tool_choice": "auto"}, f"{BOS}[hi]>"),
    ],
)
async def test_chat_is_rendered_by_its_fields(
    codec: TextCodec, fields: dict[str, Any], prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        found = await prompt_of(server, codec, "/v1/chat/completions", CHAT | fields, monkeypatch)
        assert found == prompt


@pytest.mark.parametrize(
    "fields", [{"tools": [TOOL]}, {"tools": [TOOL], "tool_choice": "auto"}, {"tool_choice": "required"}]
)
async def test_tool_calls_are_refused_where_they_would_need_parsing(fields: dict[str, Any]) -> None:
    async with Served() as server:
        message = (await post(server, "/v1/chat/completions", CHAT | fields, status=400))["error"]["message"]
        assert "tool_choice: found" in message
        assert "calls are not parsed" in message


@pytest.mark.parametrize("special", [True, False, None])
async def test_a_completion_gets_special_tokens_unless_it_wants_none(
    codec: TextCodec, special: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        body = {"prompt": "a", "add_special_tokens": special}
        found = await prompt_of(server, codec, "/v1/completions", body, monkeypatch)
        assert found == ("a" if special is False else f"{BOS}a")


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


async def prompt_of(
    server: Served, codec: TextCodec, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The text of the prompt that the fleet got."""
    use(server, codec, monkeypatch)
    answer = await post(server, path, body | {"max_tokens": 2, "return_token_ids": True})
    ids = answer.get("prompt_token_ids") or answer["choices"][0]["prompt_token_ids"]
    assert codec.read is not None
    return codec.read.whole(ids)


def use(server: Served, codec: TextCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    async def known_codec() -> TextCodec:
        return codec

    monkeypatch.setattr(server.context, "codec", known_codec)


class Counting:
    """A codec whose text shows the reading mode: one letter per token, a star with special tokens."""

    def __init__(self, *, spaced: bool) -> None:
        space = " " if spaced else ""
        self.read: Reader | None = Reader(
            lambda tokens: "a" * len(tokens), lambda tokens: space.join("*" for _ in tokens), {"*": 1}
        )

    def render(self, prompt: PromptLine, options: RenderOptions = USUAL) -> Rendered:
        return Rendered(list(prompt.prompt_token_ids or (7, 7)))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": [1], "max_tokens": 3, "min_tokens": 3}),
        ("/generate", {"input_ids": [1], "sampling_params": {"max_new_tokens": 3, "min_new_tokens": 3}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_special_tokens_are_in_the_text_unless_skipped(
    path: str, body: dict[str, Any], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served() as server:
        use(server, Counting(spaced=False), monkeypatch)
        for skip, text in ((True, "aaa"), (None, "aaa"), (False, "***")):
            wanted = {"skip_special_tokens": skip, "spaces_between_special_tokens": False}
            params = {"sampling_params": body["sampling_params"] | wanted} if "sampling_params" in body else wanted
            answer = await server.http.post(path, json=body | params | {"stream": stream})
            assert answer.status_code == 200, answer.text
            assert text in answer.text


async def test_spaces_between_special_tokens_cannot_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as server:
        use(server, Counting(spaced=True), monkeypatch)
        body = {"prompt": [1], "spaces_between_special_tokens": False, "max_tokens": 2}
        await post(server, "/v1/completions", body)
        refused = await post(server, "/v1/completions", body | {"skip_special_tokens": False}, status=400)
        assert refused["error"]["message"].startswith("spaces_between_special_tokens: found False")
