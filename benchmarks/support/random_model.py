"""Models with random weights whose contexts take long to compute.

With 12 layers of width 768 a model has 95 million parameters and 73,728 bytes of KV per token in float32; with 6 layers
of width 512 it has 22 million parameters and 24,576 bytes.
"""

from pathlib import Path
from typing import Any

VOCABULARY = 4096


def make_model(folder: Path, layers: int = 12, width: int = 768) -> int:
    """Writes a random Llama with a tokenizer of one letter; returns its number of parameters."""
    import torch  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer, models  # noqa: PLC0415 - heavy
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415 - heavy

    core = Tokenizer(models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2, "a": 3}, "a"))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=width // 64, head_dim=64, max_position_embeddings=8192,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return sum(part.numel() for part in model.parameters())


def make_mixture(folder: Path) -> int:
    """A random Qwen3 mixture of experts, 32 with 8 for a token in each of 8 layers, with the same tokenizer; the number
    of its parameters."""
    import torch  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer, models  # noqa: PLC0415 - heavy
    from transformers import PreTrainedTokenizerFast, Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: PLC0415 - heavy

    core = Tokenizer(models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2, "a": 3}, "a"))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    more: dict[str, Any] = {"head_dim": 64}  # which its types leave out
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, moe_intermediate_size=128, num_hidden_layers=8,
        num_experts=32, num_experts_per_tok=8, norm_topk_prob=True, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0, **more,
    )  # fmt: skip
    model: Any = Qwen3MoeForCausalLM(config)
    model.save_pretrained(folder)
    return sum(part.numel() for part in model.parameters())
