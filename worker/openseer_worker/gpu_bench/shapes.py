"""The measured models: named shapes with random weights, or a folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 128,
    "num_key_value_heads": 8,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "torch_dtype": "bfloat16",
    "hidden_act": "silu",
    "attention_bias": False,
    "eos_token_id": 0,
    "bos_token_id": 1,
}


def _qwen3(hidden: int, inner: int, layers: int, heads: int, *, tied: bool, **other: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return _QWEN3 | sizes | {"num_attention_heads": heads, "tie_word_embeddings": tied} | other


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _qwen3(64, 128, 2, 2, tied=False, num_key_value_heads=1, head_dim=32, vocab_size=1024),
    "0.6b": _qwen3(1024, 3072, 28, 16, tied=True),
    "1.7b": _qwen3(2048, 6144, 28, 16, tied=True),
    "4b": _qwen3(2560, 9728, 36, 32, tied=True),
    "8b": _qwen3(4096, 12288, 36, 32, tied=False),
    "14b": _qwen3(5120, 17408, 40, 40, tied=False),
    "32b": _qwen3(5120, 25600, 64, 64, tied=False),
}
"""The shapes of Qwen3's models, by size; `tiny` is for a CPU."""


def write_shape(name: str, folder: Path) -> Path:
    """Writes a folder that vLLM accepts as a model if its arguments state random weights and no tokenizer; returns the
    folder."""
    place = folder / f"shape-{name}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps(SHAPES[name], indent=1))
    return place


@dataclass(frozen=True)
class Scale:
    """The size of measurements: `steps` measured steps after `warm` unmeasured ones; contexts of at most `longest`
    tokens, and about `prefill` tokens per batch."""

    warm: int
    steps: int
    longest: int
    prefill: int
    room: int
    """The engine's limit of prompt and response, in tokens."""
    samples: int
    """Number of texts sampled to compare distributions."""

    def context(self, batch: int) -> int:
        """Returns the context tokens of each request of a batch at the first measured step."""
        return max(min(16, self.longest), min(self.longest, self.prefill // batch))


GPU = Scale(warm=6, steps=40, longest=4096, prefill=131072, room=8192, samples=2400)
CPU = Scale(warm=3, steps=40, longest=48, prefill=131072, room=1024, samples=1000)
