"""Checks that a folder has a LoRA adapter, and that the job's engine computes it as it was trained."""

from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, cast

from openseer_core.errors import JsonError, LoadError
from openseer_core.manifest.generation import Model
from openseer_core.strict_json import parse
from openseer_core.weights.adapters import CONFIG, TENSORS, wrong_adapter
from openseer_worker.weights.files import Tensors, is_adapter, survey

MOST_CONFIG_BYTES = 2**20
"""Limit of the size of an adapter's configuration, in bytes."""


def refuse_adapter(folder: Path) -> NoReturn:
    """Raises LoadError: the check of adapters in a job that serves none."""
    raise LoadError(f"{folder}: this job serves no adapters; set spec.model.lora in its manifest")


class AdapterCheck:
    """Checks adapters for one model."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __call__(self, folder: Path) -> None:
        """Raises LoadError for a folder without an adapter, or with one that the engine cannot compute as trained."""
        lora = self._model.lora
        if lora is None:
            refuse_adapter(folder)
        if not folder.is_dir():
            raise LoadError(f"there is no folder {folder} on this worker")
        if not is_adapter(folder):
            raise LoadError(f"{folder} holds no adapter: needed {CONFIG} and {TENSORS}, and no model.safetensors")
        if problem := wrong_adapter(_config(folder / CONFIG), survey(folder)[1], lora, self._model.path, self._own):
            raise LoadError(f"{folder}: {problem}")

    @cached_property
    def _own(self) -> Tensors | None:
        path = Path(self._model.path)
        return (survey(path)[1] or None) if path.is_dir() else None


def _config(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(MOST_CONFIG_BYTES + 1)
    if len(data) > MOST_CONFIG_BYTES:
        raise LoadError(f"{path}: more than {MOST_CONFIG_BYTES} bytes")
    try:
        config = parse(data)
    except JsonError as error:
        raise LoadError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise LoadError(f"{path}: found {type(config).__name__}, needed: a map")
    return cast("dict[str, Any]", config)
