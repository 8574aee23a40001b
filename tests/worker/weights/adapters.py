"""Writes adapters for tests: PEFT folders of one module, without torch."""

import json
import struct
from pathlib import Path
from typing import Any

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def write_adapter(
    folder: Path, content: str = "a", *, rank: int = 2, module: str = MODULE, dtype: str = "F32", **config: Any
) -> Path:
    """Writes an adapter whose bytes depend on `content`."""
    item = 4 if dtype == "F32" else 2
    shapes = {f"{module}.lora_A.weight": (rank, 8), f"{module}.lora_B.weight": (8, rank)}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + item * shape[0] * shape[1]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    data = (content.encode() * end)[:end]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    values = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(values | config))
    return folder
