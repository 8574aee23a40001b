"""Records on disk that drafts do not pay, so that an engine is built for them only once.

On a GPU an engine built for drafts is slower than one without, even if it drafts nothing (docs/gpu.md). So if the step
profile shows that even perfect drafts would not make the engine faster, it is built again without drafts. The next
start of the same model on the same device builds it without drafts at once.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from openseer_core.manifest.job import Model, Parallelism, Sampling, Speculation

_LOG = logging.getLogger(__name__)
CACHE = "OPENSEER_CACHE"
"""Environment variable: the cache folder, whose content can be computed again; default ~/.cache/openseer."""
VALID_SECONDS = 7 * 24 * 3600.0
"""Validity of a record, in seconds; then the engine is measured again."""


def no_gain_folder() -> Path:
    """Returns the folder of records on this machine."""
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    given = os.environ.get(CACHE)
    return (Path(given).expanduser() if given else home / ".cache" / "openseer") / "drafts-that-do-not-pay"


class NoGainRecord:
    """The record of one engine, identified by `facts`. It is valid for VALID_SECONDS only, since the machine may have
    been busy during the measurement. Without a usable folder there is no record."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        key = hashlib.sha256(json.dumps(self._facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._path = folder / f"{key}.json"

    def read(self) -> str:
        """Returns the reason why drafts do not pay here; "" without a valid record."""
        try:
            if time.time() - self._path.stat().st_mtime > VALID_SECONDS:
                return ""
            reason = json.loads(self._path.read_text())["reason"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        return f"{reason} (found before; {self._path})" if isinstance(reason, str) and reason else ""

    def keep(self, reason: str) -> None:
        """Writes the reason for the next start."""
        part = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._facts | {"reason": reason}, indent=1, default=str))
            part.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            _LOG.warning("cannot record that drafts do not pay here; the next start measures again: %s", error)


def facts_of(model: Model, parallelism: Parallelism, sampling: Sampling, speculation: Speculation) -> dict[str, Any]:
    """Returns the settings of a job that determine the duration of its engine's steps."""
    return {
        "model": _identity(model.path),
        "revision": model.revision,
        "dtype": model.dtype,
        "engine_args": model.engine_args,
        "engine_process": model.engine_process,
        "tensor": parallelism.tensor,
        "pipeline": parallelism.pipeline,
        "logprobs": sampling.logprobs,
        "longest_draft": speculation.max_tokens,
    }


def _identity(path: str) -> str:
    """Returns the hash of a model's configuration, since folders are copied; the path if it has no configuration."""
    config = Path(path) / "config.json"
    try:
        return hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError:
        return path
