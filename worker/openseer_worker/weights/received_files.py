"""Writes tensors that arrive one after the other to safetensors files."""

import json
import os
import shutil
import struct
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from openseer_core.errors import LoadError
from openseer_worker.weights.files import INDEX, MAX_HEADER_BYTES

DTYPES = {
    "float64": ("F64", 8),
    "float32": ("F32", 4),
    "float16": ("F16", 2),
    "bfloat16": ("BF16", 2),
    "float8_e4m3fn": ("F8_E4M3", 1),
    "float8_e5m2": ("F8_E5M2", 1),
    "int64": ("I64", 8),
    "int32": ("I32", 4),
    "int16": ("I16", 2),
    "int8": ("I8", 1),
    "uint8": ("U8", 1),
    "bool": ("BOOL", 1),
}
"""For torch's name of a dtype: the safetensors name, and the bytes of one element."""
PART = ".part"
"""Suffix of the name of an incomplete folder."""
_SHOWN = 100


class Announced(NamedTuple):
    """An announced tensor: name, torch's name of its dtype, and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The tensor's bytes."""
        return prod(self.shape) * DTYPES[self.dtype][1]


class ReceivedFiles:
    """Writes the files of one version: `expect` begins an update with the next tensors, `add` writes one tensor,
    `end_update` ends the update's file, `finish` completes the folder.

    The methods raise LoadError for a tensor that is announced twice, arrives out of order or has another size, and if
    the disk has too little space for an update.
    """

    def __init__(self, folder: Path) -> None:
        self._whole, self._part = folder, folder.with_name(folder.name + PART)
        for before in (self._whole, self._part):
            shutil.rmtree(before, ignore_errors=True)
        self._part.mkdir(parents=True)
        self._places: dict[str, str] = {}
        self._total = 0
        self._number = 0
        self._file: BinaryIO | None = None
        self._coming: list[Announced] = []

    def expect(self, tensors: Sequence[Announced]) -> None:
        """Begins an update with these tensors, in this order."""
        self._check_all_came()
        names = [tensor.name for tensor in tensors]
        twice = [name for name, count in Counter(names).items() if count > 1 or name in self._places]
        if twice:
            raise LoadError(f"tensor {min(twice)[:_SHOWN]} was announced twice")
        size = sum(tensor.size for tensor in tensors)
        free = shutil.disk_usage(self._part).free
        if size > free:
            raise LoadError(f"{self._part.parent} has {free:,} bytes free, the tensors need {size:,}")
        self._number += 1
        file = f"model-{self._number:05}.safetensors"
        self._file = (self._part / file).open("xb")
        self._file.write(_header(tensors))
        self._places |= dict.fromkeys(names, file)
        self._total += size
        self._coming = list(reversed(tensors))

    def add(self, name: str, data: memoryview) -> None:
        """Writes the bytes of the next tensor."""
        if not self._coming or self._coming[-1].name != name:
            raise LoadError(f"tensor {name[:_SHOWN]} arrived out of order")
        assert self._file is not None
        expected, found = self._coming.pop().size, data.nbytes
        if found != expected:
            raise LoadError(f"tensor {name[:_SHOWN]}: found {found:,} bytes, announced: {expected:,}")
        self._file.write(data)

    def end_update(self) -> None:
        """Ends an update and syncs its file to the disk."""
        self._check_all_came()
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def finish(self) -> Path:
        """Completes the folder, gives it its final name, and returns it."""
        self.end_update()
        if not self._places:
            raise LoadError("no tensor has arrived")
        index = {"metadata": {"total_size": self._total}, "weight_map": self._places}
        (self._part / INDEX).write_text(json.dumps(index), encoding="utf-8")
        self._part.rename(self._whole)
        return self._whole

    def close(self) -> None:
        """Removes an incomplete folder."""
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._part, ignore_errors=True)

    def _check_all_came(self) -> None:
        if self._coming:
            raise LoadError(f"tensor {self._coming[-1].name[:_SHOWN]} was announced and has not arrived")


def tensors_of(names: Sequence[object], dtypes: Sequence[object], shapes: Sequence[object]) -> list[Announced]:
    """Checks and returns the tensors that a sender announces. Raises LoadError."""
    if not len(names) == len(dtypes) == len(shapes):
        raise LoadError(
            f"update_info: found {len(names)} names, {len(dtypes)} dtype_names and {len(shapes)} shapes, needed: "
            "as many of each"
        )
    found: list[Announced] = []
    for name, dtype, shape in zip(names, dtypes, shapes, strict=True):
        if not isinstance(name, str) or not name or name == "__metadata__":
            raise LoadError(f"update_info.names: found {str(name)[:_SHOWN]!r}, needed: a tensor's name")
        if dtype not in DTYPES:
            raise LoadError(f"update_info.dtype_names: found {str(dtype)[:_SHOWN]!r}, allowed: {', '.join(DTYPES)}")
        lengths = cast("list[object]", shape) if isinstance(shape, list) else [None]
        whole = tuple(length for length in lengths if type(length) is int and length >= 0)
        if len(whole) != len(lengths):
            raise LoadError(f"update_info.shapes: found {str(lengths)[:_SHOWN]} of {name[:_SHOWN]}, needed: lengths")
        found.append(Announced(name, str(dtype), whole))
    return found


def _header(tensors: Sequence[Announced]) -> bytes:
    entries, start = {}, 0
    for tensor in tensors:
        end = start + tensor.size
        entries[tensor.name] = {"dtype": DTYPES[tensor.dtype][0], "shape": tensor.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise LoadError(f"update_info: {len(tensors):,} tensors are too many for one file; send them in parts")
    return struct.pack("<Q", len(text)) + text
