"""Files of weights: lists them, and checks that they are complete."""

import json
import struct
from pathlib import Path, PurePosixPath
from typing import Any, cast

from openseer_core.errors import LoadError
from openseer_core.weights.adapters import CONFIG, TENSORS, Tensor

MAX_HEADER_BYTES = 100 * 2**20
"""Limit of a safetensors file's header in bytes, by its specification."""
_TIED = frozenset({"lm_head.weight"})
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


Tensors = dict[str, Tensor]
"""Tensors by name."""


def weight_files(folder: Path) -> list[Path]:
    """Returns the files of a folder's weights: the index and its files, all safetensors without an index, or an
    adapter's two files."""
    index = folder / INDEX
    if is_adapter(folder):
        return [folder / CONFIG, folder / TENSORS]
    if index.exists():
        return [index, *(folder / name for name in sorted(named_files(index.read_bytes(), str(index))))]
    return sorted(folder.glob("*.safetensors"))


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter, as PEFT saves it, and no weights of a model."""
    has_weights = (folder / INDEX).exists() or (folder / SINGLE).exists()
    return not has_weights and (folder / CONFIG).is_file() and (folder / TENSORS).is_file()


def check_files(folder: Path, own: Path | None = None) -> int:
    """Returns the bytes of a folder's weights. Raises LoadError if it has none, or a file is missing or truncated.

    `own`: folder of the job's model. With it, raises LoadError also for a tensor of that model that is missing or has
    another shape.
    """
    size, tensors = survey(folder)
    if not size:
        raise LoadError(f"{folder} has no safetensors; name the folder that contains them")
    if own is not None:
        _compare(folder, tensors, own)
    return size


def survey(folder: Path) -> tuple[int, Tensors]:
    """Returns the bytes of a folder's safetensors, and their tensors. Raises LoadError for a missing or bad file."""
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder} on this worker")
    names = {path.name for path in folder.glob("*.safetensors")}
    index = folder / INDEX
    if index.exists():
        missing = sorted(named_files(index.read_bytes(), str(index)) - names)
        if missing:
            raise LoadError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    size, tensors = 0, Tensors()
    for name in sorted(names):
        size += _read_header(folder / name, tensors)
    return size, tensors


def _compare(folder: Path, tensors: Tensors, own: Path) -> None:
    """Raises LoadError for a missing tensor, or a tensor of another shape: an engine would keep its old tensor."""
    for name, (_, shape) in survey(own)[1].items():
        found = tensors[name].shape if name in tensors else None
        if found is None and not (name in _TIED and _is_tied(own)):
            raise LoadError(f"{folder} lacks tensor {name}, which the job's model has")
        if found not in (None, shape):
            raise LoadError(f"{folder}: tensor {name} has shape {list(found or ())}, in the job's model {list(shape)}")


def _is_tied(own: Path) -> bool:
    """Whether a model's output layer shares its embedding, so that the files may lack the output layer."""
    try:
        return bool(json.loads((own / "config.json").read_bytes()).get("tie_word_embeddings"))
    except (OSError, ValueError, AttributeError):
        return False


def _read_header(path: Path, found: Tensors) -> int:
    """Checks one file's size against its header; adds its tensors to `found`, and returns its bytes.

    Raises LoadError for a bad header or size.
    """
    if not path.is_file():  # opening a pipe would block
        raise LoadError(f"{path} is no file")
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise LoadError(f"{path} is no safetensors file, or is cut short: it has {size} bytes")
        header = file.read(length)
    try:
        tensors = cast("dict[str, Any]", json.loads(header))
        ends = [0]
        for name, tensor in tensors.items():
            if name != "__metadata__":
                ends.append(int(tensor["data_offsets"][1]))
                found[name] = Tensor(str(tensor["dtype"]), tuple(int(length) for length in tensor["shape"]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise LoadError(f"{path}: its header cannot be read") from None
    expected = 8 + length + max(ends)
    if size != expected:
        raise LoadError(f"{path} is cut short or was written over: found {size} bytes, its header says {expected}")
    return size


def named_files(index: bytes, path: str) -> set[str]:
    """Returns the file names in an index of safetensors. Raises LoadError for a name of anything but a safetensors file
    beside the index."""
    try:
        names = {str(name) for name in json.loads(index)["weight_map"].values()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LoadError(f"{path}: it cannot be read as an index of safetensors") from None
    strange = sorted(name for name in names if PurePosixPath(name).name != name or not name.endswith(".safetensors"))
    if strange:
        raise LoadError(f"{path} names {strange[0]}, which is no safetensors file beside it")
    return names
