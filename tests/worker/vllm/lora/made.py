"""Creates LoRA adapters of the tiny model as PEFT saves them, and the merged weights."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.repository import ROOT

OWN = ROOT / "examples" / "tiny-model" / "model"
RANK, ALPHA = 4, 8


def make_adapter(folder: Path, seed: int, *, scale: float = 0.05, rank: int = RANK, **config: Any) -> Path:
    """Writes an adapter of all linear modules of all layers."""
    import torch  # noqa: PLC0415 - heavy
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    for name, tensor in load_file(OWN / "model.safetensors").items():
        if name.endswith("proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = scale * torch.randn(rank, tensor.shape[1], generator=random)
            tensors[f"{module}.lora_B.weight"] = scale * torch.randn(tensor.shape[0], rank, generator=random)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    modules = sorted({name.split(".")[-3] for name in tensors})
    content = {"peft_type": "LORA", "r": rank, "lora_alpha": ALPHA, "target_modules": modules, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(content | config))
    return folder


def merged(adapter: Path, folder: Path) -> Path:
    """Writes the tiny model with W + B A alpha / r in place of each W that the adapter changes."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    shutil.copytree(OWN, folder)
    tensors, changes = load_file(OWN / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for name in tensors:
        module = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" in changes:
            down, up = changes[f"{module}.lora_A.weight"], changes[f"{module}.lora_B.weight"]
            tensors[name] = (tensors[name].float() + up @ down * ALPHA / down.shape[0]).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
