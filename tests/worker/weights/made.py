"""Writes files of weights for tests."""

import json
import struct
from pathlib import Path

from openseer_worker.weights.files import SINGLE


def write_weights(folder: Path, content: str) -> None:
    """Writes weights of this content, in place of those in the folder."""
    size = len(content.encode())
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    folder.mkdir(exist_ok=True)
    _write(folder / SINGLE, struct.pack("<Q", len(header)) + header + content.encode())


def safetensors(path: Path, count: int = 4, name: str = "w", fill: bytes = b"\0") -> None:
    """Writes a file of one tensor."""
    header = json.dumps({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    _write(path, struct.pack("<Q", len(header)) + header + fill * (4 * count))


def _write(path: Path, content: bytes) -> None:
    """Writes a file with another time than the file before; a file system's clock has steps of a few milliseconds."""
    before = path.stat().st_mtime_ns if path.exists() else None
    path.write_bytes(content)
    while path.stat().st_mtime_ns == before:
        path.write_bytes(content)
