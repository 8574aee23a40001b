"""Where drafts were found not to pay: kept on disk, so that the engine is built for them only once.

An engine that is built for drafts is slower on a GPU than one that is not, even when it drafts nothing (docs/gpu.md).
So where the profile says that even perfect drafts would not make it faster, it is built again without them, and the
next start of the same model on the same device does so at once.
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
"""Environment: the folder of what can be made anew; default ~/.cache/openseer."""
VALID_SECONDS = 7 * 24 * 3600.0
"""After so long it is measured again."""


def no_gain_folder() -> Path:
    """Where records are kept on this machine."""
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    given = os.environ.get(CACHE)
    return (Path(given).expanduser() if given else home / ".cache" / "openseer") / "drafts-that-do-not-pay"


class NoGainRecord:
    """What was found for one engine: `facts` are all that it depends on. It holds for a week, for the machine may have
    been busy when it was measured. A folder that cannot be used keeps nothing."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)
        key = hashlib.sha256(json.dumps(self._facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._path = folder / f"{key}.json"

    def read(self) -> str:
        """Why drafts do not pay here; empty where nothing was found against them."""
        try:
            if time.time() - self._path.stat().st_mtime > VALID_SECONDS:
                return ""
            reason = json.loads(self._path.read_text())["reason"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        return f"{reason} (found before; {self._path})" if isinstance(reason, str) and reason else ""

    def keep(self, reason: str) -> None:
        """Keeps it for the next start."""
        part = self._path.with_suffix(f".{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._facts | {"reason": reason}, indent=1, default=str))
            part.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            _LOG.warning("not kept that drafts do not pay here, so the next start measures again: %s", error)


def facts_of(model: Model, parallelism: Parallelism, sampling: Sampling, speculation: Speculation) -> dict[str, Any]:
    """What of a job the steps of its engine depend on."""
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
    """A model by what it is, for folders are copied to other places: its configuration; else its name."""
    config = Path(path) / "config.json"
    try:
        return hashlib.sha256(config.read_bytes()).hexdigest()
    except OSError:
        return path
