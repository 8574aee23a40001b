"""A model's tokenizer, found as its engine finds it: in a folder here, or under a hub's name.

Nothing here asks a person: what a library would ask on the terminal is an error, or what the manifest says.
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

# A repository's name, with or without its owner's.
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
# Engine arguments about where files come from, by the names of transformers.
_ORIGINS = {"code_revision": "code_revision", "hf_token": "token", "download_dir": "cache_dir"}
_TOKENIZERS = ("tokenizer*.json", "*.model*", "*.tiktoken", "vocab.*", "tekken.json")
"""Files by which a folder may have a tokenizer."""
UNTRUSTED = (
    "whose tokenizer or configuration is code of the model's authors; to run it, here and in the engine, set "
    "spec.model.engineArgs.trust_remote_code: true"
)
_ONE_AT_A_TIME = threading.Lock()


def check_place(field: str, path: str) -> None:
    """Raises ModelError for a path that is neither a folder here nor a name that a hub may know."""
    if not Path(path).is_dir() and not _HUB_NAME.fullmatch(path):
        raise ModelError(f"{field}: found {path}, which is no folder here (working directory: {Path.cwd()})")


def trusts_code(model: Model) -> bool:
    """Whether the manifest says that code of the model's authors may run."""
    return model.engine_args.get("trust_remote_code") is True


_LOADING = threading.Lock()
"""transformers imports its parts as they are asked for: two threads that ask at once find them half imported."""


def asks_for_trust(model: Model, error: Exception) -> bool:
    """Whether loading a model failed because its code is not trusted."""
    return not trusts_code(model) and "trust_remote_code" in str(error)


def load_tokenizer(model: Model, *, run_code: bool = True) -> Any:
    """The model's tokenizer. `run_code`: code of the model's own may run here where the manifest trusts it.

    Raises ModelError when it cannot be loaded.
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
                trust_remote_code=trusts_code(model) and run_code,  # never None: then transformers would ask
                **given,
            )
            return _unwarned(tokenizer)
    except Exception as error:  # the loader raises whatever the files, their code or the hub made it stumble over
        raise ModelError(f"{field}: found {path}, {_reason(error, model)}") from error


def _loader() -> Callable[..., Any]:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds, and a scripted job needs none

    return cast("Any", AutoTokenizer).from_pretrained


def _unwarned(tokenizer: Any) -> Any:
    """Without the warning that a long prompt "will result in indexing errors": what fits is told by others."""
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
    where = f"no folder here (working directory: {Path.cwd()})"
    folder = Path(path).parent
    beside = f"; {folder}/ is a folder here, and has no {Path(path).name}" if folder.name and folder.is_dir() else ""
    told = f"whose tokenizer cannot be loaded as that of a hub's model: {reason}{closed}"
    return f"which is {where}{beside}, and {told}"


@contextmanager
def unattended() -> Generator[None]:
    """Whoever reads standard input meanwhile finds its end: a library that asks gets no answer, and does not wait."""
    with _ONE_AT_A_TIME, open(os.devnull) as nothing:  # noqa: PTH123 - no path of ours
        before, sys.stdin = sys.stdin, nothing
        try:
            yield
        finally:
            sys.stdin = before
