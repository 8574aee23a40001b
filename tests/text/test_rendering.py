"""Prompts are rendered to token ids, with tokenizers like those of models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tokenizers import processors

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model
from openseer_core.manifest.prompts import PromptLine
from openseer_text.rendering import RenderError, RenderOptions, TextCodec, open_codec
from tests.text.tokenizers_of_tests import BOS, THINK, byte_level, pieces, save, words


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    """The codec of a tokenizer that puts BOS before every text."""
    return opened(byte_level(opens=True), tmp_path_factory.mktemp("model"))


def opened(tokenizer: Any, folder: Path, say: Callable[[str], None] = print) -> TextCodec:
    return open_codec(Model(path=str(save(tokenizer, folder))), say)


def text_of(codec: TextCodec, prompt: str, options: RenderOptions | None = None) -> str:
    rendered = codec.render(PromptLine("p", 1, prompt), options or RenderOptions())
    assert codec.read is not None
    return codec.read.whole(rendered.token_ids)


def chat(codec: TextCodec, *roles: str, **options: Any) -> str:
    messages = tuple({"role": role, "content": "hi"} for role in roles)
    rendered = codec.render(PromptLine("p", 1, None, messages), RenderOptions(**options))
    assert codec.read is not None
    assert rendered.template_hash
    return codec.read.whole(rendered.token_ids)


@pytest.mark.parametrize("make", [lambda: byte_level(opens=True), pieces], ids=["bytes", "pieces"])
@pytest.mark.parametrize("text", ["a.", f"{BOS}a.", f"{BOS}{BOS}a."])
def test_a_prompt_that_begins_with_bos_gets_no_second_one(make: Callable[[], Any], text: str, tmp_path: Path) -> None:
    said: list[str] = []
    codec = opened(make(), tmp_path, said.append)
    opening = text if text.startswith(BOS) else BOS + text
    assert [text_of(codec, text).replace(" ", "") for _ in range(2)] == [opening] * 2
    assert said == (
        [f"prompts that begin with {BOS} get no second one from the tokenizer"] if text.startswith(BOS) else []
    )


@pytest.mark.parametrize(
    ("text", "begun_with"),
    [("a", None), (f"{BOS}{THINK}a", BOS), (f"{BOS}{THINK}{BOS}a", BOS), (f"{BOS}a", BOS), (f"{THINK}a", THINK)],
)
def test_an_opening_of_two_tokens_is_not_doubled(text: str, begun_with: str | None, tmp_path: Path) -> None:
    tokenizer = byte_level()
    ids = [(word, cast("int", tokenizer.convert_tokens_to_ids(word))) for word in (BOS, THINK)]
    inner: Any = tokenizer.backend_tokenizer
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} {THINK} $A", special_tokens=ids)
    said: list[str] = []
    codec = opened(tokenizer, tmp_path, said.append)
    before = {None: BOS + THINK, BOS: "", THINK: BOS}[begun_with]
    assert [text_of(codec, text) for _ in range(2)] == [before + text] * 2
    assert [line.split(" get ")[0] for line in said] == (
        [f"prompts that begin with {begun_with}"] if begun_with else []
    )


@pytest.mark.parametrize("make", [byte_level, words], ids=["bytes", "words"])
def test_a_tokenizer_that_adds_no_bos_keeps_two_written_ones(make: Callable[[], Any], tmp_path: Path) -> None:
    said: list[str] = []
    assert text_of(opened(make(), tmp_path, said.append), f"{BOS}{BOS}").replace(" ", "") == BOS * 2
    assert not said


def test_special_tokens_are_omitted_or_added_by_option(codec: TextCodec) -> None:
    assert text_of(codec, "a", RenderOptions(special_tokens=False)) == "a"
    assert chat(codec, "user") == chat(codec, "user", special_tokens=True) == f"{BOS}[hi]>"


def test_a_chat_template_receives_its_variables_and_end_options(codec: TextCodec) -> None:
    assert chat(codec, "user", generation_prompt=False) == f"{BOS}[hi]"
    assert chat(codec, "user", template_values={"mood": "glad"}) == f"{BOS}[hi](glad)>"
    assert chat(codec, "user", "assistant", generation_prompt=False, continue_last=True) == f"{BOS}[hi][hi"


@pytest.mark.parametrize(
    "name", ["chat_template", "tokenize", "tools", "conversation", "messages", "self", "conversations"]
)
def test_a_value_that_is_no_variable_of_the_template_is_refused(codec: TextCodec, name: str) -> None:
    with pytest.raises(RenderError, match=f"found a value of {name}, allowed: variables"):
        chat(codec, "user", template_values={name: "x"})


def test_the_refusal_of_a_template_is_reported_on_one_line(codec: TextCodec) -> None:
    with pytest.raises(RenderError, match=r"the chat template refuses the messages: no tools$"):
        chat(codec, "tool")


def test_an_invalid_template_is_reported_once_for_all_prompts(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}\n{{ m['content' }}"
    codec = opened(tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"chat template \(.*\) cannot be read, line 2: ") as caught:
        codec.render(PromptLine("p", 1, messages=({"role": "user", "content": "a"},)))
    assert not isinstance(caught.value, RenderError)
    assert str(tmp_path) in str(caught.value)


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = None
    with pytest.raises(RenderError, match="no chat template; give prompt text or token ids"):
        chat(opened(tokenizer, tmp_path), "user")
