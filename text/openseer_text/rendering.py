"""Renders prompts to token ids, and reads responses."""

import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model
from openseer_core.manifest.prompts import PromptLine
from openseer_text.model_files import check_place, load_tokenizer
from openseer_text.reading import Reader, reader_of

_LOG = logging.getLogger(__name__)
_ARGUMENTS = ("self", "messages", "conversations")
"""Names of values that transformers itself passes to a template; template_values must not contain them."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt for the engine. `template_hash`: hash of the chat template; None if no template was applied."""

    token_ids: list[int]
    template_hash: str | None = None


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """Options of rendering a prompt.

    `special_tokens`: whether the tokenizer adds its own, such as BOS; None: around a prompt's text, not around the
    output of a chat template. `generation_prompt`: a chat ends with the start of an answer. `continue_last`: a chat
    ends within its last message. `tools`, `documents`: passed to the template; `template_values`: its further
    variables.
    """

    special_tokens: bool | None = None
    generation_prompt: bool = True
    continue_last: bool = False
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, str]] | None = None
    template_values: Mapping[str, Any] = field(default_factory=dict[str, Any])


USUAL = RenderOptions()


class RenderError(ModelError):
    """The tokenizer cannot render a prompt. The message contains the reason; the caller adds the name of the prompt."""


class TextCodec(Protocol):
    """Renders prompts and reads responses.

    `read`: converts token ids to text; None if tokens have no text.
    """

    read: Reader | None

    def render(self, prompt: PromptLine, options: RenderOptions = USUAL) -> Rendered:
        """The token ids of a prompt. Raises RenderError."""
        ...


def open_codec(model: Model, warn: Callable[[str], None] = _LOG.warning, *, run_code: bool = True) -> TextCodec:
    """The codec of a model. `warn`: called once with a message if a prompt begins with a token, such as BOS, that the
    tokenizer also adds: it is then not added again.

    `run_code`: a tokenizer that is code may run in this process if the manifest trusts it. Raises ModelError if the
    model or its tokenizer cannot be found or read.
    """
    return ScriptedCodec() if model.engine == "scripted" else ModelCodec(model, warn, run_code=run_code)


class ScriptedCodec:
    """The codec of the scripted engine: a text prompt is its UTF-8 bytes, and a response has no text."""

    def __init__(self) -> None:
        self.read: Reader | None = None

    def render(self, prompt: PromptLine, options: RenderOptions = USUAL) -> Rendered:
        """UTF-8 bytes as token ids; for chat messages, the bytes of their contents."""
        if prompt.prompt_token_ids is not None:
            return Rendered(list(prompt.prompt_token_ids))
        if prompt.messages is not None:
            return Rendered([byte for message in prompt.messages for byte in message["content"].encode()])
        return Rendered(list((prompt.prompt or "").encode()))


class ModelCodec:
    """The model's own tokenizer and chat template."""

    def __init__(self, model: Model, warn: Callable[[str], None], *, run_code: bool) -> None:
        check_place("spec.model.path", model.path)
        self._place = model.tokenizer_path
        self._tokenizer = load_tokenizer(model, run_code=run_code)
        self.read: Reader | None = reader_of(self._tokenizer)
        template = self._tokenizer.chat_template
        self._template_hash = hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else None
        self._opening = self._find_opening()
        self._warn: Callable[[str], None] | None = warn

    def render(self, prompt: PromptLine, options: RenderOptions = USUAL) -> Rendered:
        """Encodes a text with the tokenizer; formats messages with the chat template first, according to `options`.

        Raises RenderError; ModelError if the template itself has a syntax error.
        """
        if prompt.prompt_token_ids is not None:
            return Rendered(list(prompt.prompt_token_ids))
        if prompt.prompt is not None:
            return Rendered(self._encode(prompt.prompt, special_tokens=options.special_tokens is not False))
        if self._template_hash is None:
            raise RenderError(
                "chat messages, but the model's tokenizer has no chat template; give prompt text or token ids"
            )
        messages = [dict(message) for message in prompt.messages or ()]
        self._check_values(options.template_values)
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=options.generation_prompt,
                continue_final_message=options.continue_last,
                tools=options.tools,
                documents=options.documents,
                **options.template_values,
            )
        except Exception as error:  # a template is a program of the model's author: it may raise any exception
            reason = " ".join(str(error).split()) or type(error).__name__
            if line := _syntax_line(error):
                where = f"{self._place}'s chat template (chat_template.jinja, or in tokenizer_config.json)"
                raise ModelError(f"{where} cannot be read, line {line}: {reason}") from error
            raise RenderError(f"the chat template refuses the messages: {reason}") from error
        return Rendered(self._encode(text, special_tokens=options.special_tokens is True), self._template_hash)

    def _check_values(self, values: Mapping[str, Any]) -> None:
        """Raises RenderError if a value has the name of an argument of `apply_chat_template`, not of a variable of the
        template."""
        taken = {*inspect.signature(self._tokenizer.apply_chat_template).parameters, *_ARGUMENTS}
        if wrong := next((name for name in values if name in taken), None):
            raise RenderError(f"found a value of {wrong}, allowed: variables of the model's own chat template")

    def _encode(self, text: str, *, special_tokens: bool) -> list[int]:
        ids: list[int] = list(self._tokenizer.encode(text, add_special_tokens=special_tokens))
        opening, rest = self._opening, ids[len(self._opening) :]
        if not special_tokens or not rest or rest[0] not in opening:
            return ids
        # The text itself begins with an opening token: only the opening tokens before that token are added.
        self._note_opening(rest[0])
        return opening[: opening.index(rest[0])] + rest

    def _find_opening(self) -> list[int]:
        """The tokens that the tokenizer adds before a text, such as BOS."""
        alone, opened = (list(self._tokenizer.encode("a", add_special_tokens=special)) for special in (False, True))
        starts = (at for at in range(len(opened)) if opened[at : at + len(alone)] == alone)
        return opened[: next(starts, 0)]

    def _note_opening(self, token: int) -> None:
        warn, self._warn = self._warn, None
        if warn is not None:
            word = self._tokenizer.convert_ids_to_tokens(token)
            warn(f"prompts that begin with {word} get no second one from the tokenizer")


def _syntax_line(error: Exception) -> int | None:
    """The line of a template's syntax error; None for any other error."""
    is_syntax = any(kind.__name__ == "TemplateSyntaxError" for kind in type(error).__mro__)  # jinja2 may be absent
    return getattr(error, "lineno", None) if is_syntax else None
