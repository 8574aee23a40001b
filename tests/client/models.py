"""A very small model with random weights, for tests of trainers' code."""

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def small_model(seed: int = 0, vocabulary: int = 64) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    return model.float()
