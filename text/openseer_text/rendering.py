"""Between text and token ids: prompts are rendered once, responses are read back for people."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model, Sampling
from openseer_core.manifest.prompts import PromptLine
from openseer_text.stop_strings import Decode


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the engine gets it. `template_hash`: of the chat template, where one was applied."""

    token_ids: list[int]
    template_hash: str | None = None


class TextCodec(Protocol):
    """Renders prompts and reads responses. `context_tokens`: prompt and response together, None when unknown.

    `read`: token ids → text, special tokens left out; None where tokens mean no text.
    """

    context_tokens: int | None
    read: Decode | None

    def render(self, prompt: PromptLine) -> Rendered:
        """The token ids of a prompt. Raises ModelError when the tokenizer cannot render it."""
        ...


def misfit(rendered: Rendered, context: int | None, sampling: Sampling, lengths: Sequence[int] = ()) -> str | None:
    """Why a prompt cannot be run by a model of that context; None when it can."""
    found = len(rendered.token_ids)
    if not found:
        return "the prompt has no tokens; give at least one"
    if context is None:
        return None
    if found >= context:
        return f"the prompt has {found} tokens, and the model's context holds {context} with the response"
    longest = max(lengths, default=0) if sampling.force_lengths else 0
    if found + longest > context:
        return f"the prompt's {found} tokens and a length of {longest} do not fit the model's context of {context}"
    return None


def open_codec(model: Model) -> TextCodec:
    """The codec of a model. Raises ModelError when the model or its tokenizer cannot be found or read."""
    return ScriptedCodec(model) if model.engine == "scripted" else ModelCodec(model)


class ScriptedCodec:
    """For the scripted engine: a text prompt is its UTF-8 bytes, and a response has no text."""

    def __init__(self, model: Model) -> None:
        self.context_tokens: int | None = model.scripted.max_model_len
        self.read: Decode | None = None

    def render(self, prompt: PromptLine) -> Rendered:
        """Bytes as token ids; of chat messages, those of their contents."""
        if prompt.prompt_token_ids is not None:
            return Rendered(list(prompt.prompt_token_ids))
        if prompt.messages is not None:
            return Rendered([byte for message in prompt.messages for byte in message["content"].encode()])
        return Rendered(list((prompt.prompt or "").encode()))


class ModelCodec:
    """The model's own tokenizer and chat template."""

    def __init__(self, model: Model) -> None:
        _check_path("spec.model.path", model.path)
        _check_path("spec.model.tokenizer", model.tokenizer_path)
        self._tokenizer = _load_tokenizer(model)
        self.context_tokens: int | None = _context(model)
        self.read: Decode | None = self._decode
        template = self._tokenizer.chat_template
        self._template_hash = hashlib.sha256(str(template).encode()).hexdigest()[:16] if template else None

    def render(self, prompt: PromptLine) -> Rendered:
        """Text through the tokenizer; messages through the chat template, which ends where the response begins."""
        if prompt.prompt_token_ids is not None:
            return Rendered(list(prompt.prompt_token_ids))
        if prompt.prompt is not None:
            return Rendered(list(self._tokenizer.encode(prompt.prompt)))
        if self._template_hash is None:
            raise ModelError(
                f"line {prompt.line}: has chat messages, but the model's tokenizer has no chat template; "
                "give prompt text or token ids"
            )
        messages = [dict(message) for message in prompt.messages or ()]
        try:
            text = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is a program of the model's author: it may raise anything
            raise ModelError(f"line {prompt.line}: the chat template refuses the messages: {error}") from error
        return Rendered(list(self._tokenizer.encode(text, add_special_tokens=False)), self._template_hash)

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))


def _check_path(field: str, path: str) -> None:
    """A path that looks local has to exist; anything else is taken for a hub id."""
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    if looks_local and not Path(path).expanduser().is_dir():
        raise ModelError(f"{field}: found {path}, which is no folder here (working directory: {Path.cwd()})")


def _load_tokenizer(model: Model) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, and a scripted job needs none

    path = model.tokenizer_path
    try:
        return cast("Any", AutoTokenizer.from_pretrained(path, revision=model.revision))  # pyright: ignore
    except Exception as error:  # the loader raises whatever the files or the hub made it stumble over
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"spec.model: the tokenizer at {path} cannot be loaded: {reason}") from error


def _context(model: Model) -> int | None:
    stated = model.engine_args.get("max_model_len")
    if isinstance(stated, int):
        return stated
    from transformers import AutoConfig  # noqa: PLC0415 - see above

    try:
        config = cast("Any", AutoConfig.from_pretrained(model.path, revision=model.revision))  # pyright: ignore
    except Exception as error:  # as above
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"spec.model.path: no model can be read at {model.path}: {reason}") from error
    text_config = config.get_text_config()
    context = getattr(text_config, "max_position_embeddings", None)
    return int(context) if context else None
