"""Files of weights that tests make."""

import json
import struct
from pathlib import Path


def safetensors(path: Path, count: int = 4, name: str = "w", fill: bytes = b"\0") -> None:
    """A file of one tensor."""
    header = json.dumps({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + fill * (4 * count))
