"""Loads a model's tokenizer from the place where its engine finds it: a local folder, or a name on a hub.

Nothing here prompts on the terminal: the manifest answers a question of a library, or the question is an error.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model

# A repository's name, with or without the owner.
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
# Engine arguments that state the origin of files, and the names of the same arguments in transformers.
_ORIGINS = {"code_revision": "code_revision", "hf_token": "token", "download_dir": "cache_dir"}
_TOKENIZERS = ("tokenizer*.json", "*.model*", "*.tiktoken", "vocab.*", "tekken.json")
"""Patterns of files of which a folder with a tokenizer has at least one."""
UNTRUSTED = (
    "whose tokenizer or configuration is code of the model's authors; to run it, here and in the engine, set "
    "spec.model.engineArgs.trust_remote_code: true"
)
_ONE_AT_A_TIME = threading.Lock()
"""Held while standard input is replaced, which affects the whole process."""


def check_place(field: str, path: str) -> None:
    """Raises ModelError for a path that is neither a local folder nor a possible name on a hub."""
    if not Path(path).is_dir() and not _HUB_NAME.fullmatch(path):
        raise ModelError(
            f"{field}: found {path}, which is not a folder on this machine (working directory: {Path.cwd()}), "
            "allowed: a folder, or a hub's model as OWNER/NAME"
        )


def trusts_code(model: Model) -> bool:
    """Whether the manifest allows the model authors' code to run."""
    return model.engine_args.get("trust_remote_code") is True


_LOADING = threading.Lock()
"""Held while transformers loads: its parts are imported on first use, and another thread would find half of them."""


def asks_for_trust(model: Model, error: Exception) -> bool:
    """Whether loading a model failed because the manifest does not trust its code."""
    return not trusts_code(model) and "trust_remote_code" in str(error)


def load_tokenizer(model: Model, *, run_code: bool = True) -> Any:
    """Loads the model's tokenizer. `run_code`: code of the model may run in this process if the manifest trusts it.

    Raises ModelError if the tokenizer cannot be loaded.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    path, field = model.tokenizer_path, "spec.model.tokenizer" if model.tokenizer else "spec.model.path"
    check_place(field, path)
    given = {own: value for name, own in _ORIGINS.items() if (value := model.engine_args.get(name)) is not None}
    try:
        with _LOADING, unattended():
            tokenizer = _loader()(
                path,
                revision=None if model.tokenizer else model.revision,
                trust_remote_code=trusts_code(model) and run_code,  # never None, which would make transformers ask
                **given,
            )
            return _unwarned(tokenizer)
    except Exception as error:  # the loader may raise any exception, from files, their code or the hub
        raise ModelError(f"{field}: found {path}, {_reason(error, model)}") from error


def _loader() -> Callable[..., Any]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, and a scripted job does not need it

    return cast("Any", AutoTokenizer).from_pretrained


def _unwarned(tokenizer: Any) -> Any:
    """Removes the warning that a long prompt "will result in indexing errors": admission checks lengths."""
    given = getattr(tokenizer, "deprecation_warnings", None)
    if isinstance(given, dict):
        given["sequence-length-is-longer-than-the-specified-maximum"] = True
    return tokenizer


def _reason(error: Exception, model: Model) -> str:
    text, path = str(error).strip(), model.tokenizer_path
    if asks_for_trust(model, error):
        return UNTRUSTED
    if "trust_remote_code" in text:
        return "whose tokenizer or configuration is code of the model's authors, which does not run in this process"
    reason = text.split("\n")[0].strip() or type(error).__name__
    if Path(path).is_dir() and not any(True for name in _TOKENIZERS for _ in Path(path).glob(name)):
        return f"a folder without a tokenizer, needed: tokenizer.json or another of {', '.join(_TOKENIZERS)}"
    if Path(path).is_dir():
        return f"whose tokenizer cannot be loaded: {reason}"
    closed = "; log in with `hf auth login`, or set HF_TOKEN" if re.search(r"gated repo|\b401\b", text) else ""
    where = f"not a folder on this machine (working directory: {Path.cwd()})"
    folder = Path(path).parent
    beside = f"; {folder}/ is a folder here, and has no {Path(path).name}" if folder.name and folder.is_dir() else ""
    problem = f"whose tokenizer cannot be loaded as that of a hub's model: {reason}{closed}"
    return f"which is {where}{beside}, and {problem}"


@contextmanager
def unattended() -> Generator[None]:
    """Replaces standard input by an empty file in a block, so that a library that prompts fails and does not wait."""
    with _ONE_AT_A_TIME, open(os.devnull) as nothing:  # noqa: PTH123 - no path of ours
        before, sys.stdin = sys.stdin, nothing
        try:
            yield
        finally:
            sys.stdin = before
