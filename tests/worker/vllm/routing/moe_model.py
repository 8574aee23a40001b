"""A small random mixture-of-experts model, and the experts of its tokens computed with torch."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYERS, EXPERTS, CHOSEN = 3, 16, 4
"""The first layer has no experts."""


def make_moe(folder: Path, tokenizer_of: Path) -> None:
    """Creates a Qwen3 of 0.3 M parameters with the tokenizer of another model."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: PLC0415 - heavy

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    more: dict[str, Any] = {"head_dim": 32}  # missing in its types
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, moe_intermediate_size=32,
        num_hidden_layers=LAYERS, num_experts=EXPERTS, num_experts_per_tok=CHOSEN, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[0], num_attention_heads=2, num_key_value_heads=1, **more,
        max_position_embeddings=1024, initializer_range=0.3, tie_word_embeddings=False, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).save_pretrained(folder)


def replayed_scores(folder: Path, tokens: Sequence[int], routed: NDArray[np.int64]) -> NDArray[np.float32]:
    """Log-probabilities of `tokens[1:]` by torch, through these experts: [tokens - 1, layers with experts, experts]."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import Qwen3MoeForCausalLM  # noqa: PLC0415 - heavy

    from openseer_client.routing.replay import replayed  # noqa: PLC0415 - heavy

    model: Any = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad(), replayed(model, list(torch.from_numpy(routed).transpose(0, 1))):
        scores = model(torch.tensor([list(tokens[:-1])])).logits[0].log_softmax(-1)
    return scores[range(len(tokens) - 1), list(tokens[1:])].numpy()


def experts_of(folder: Path, tokens: Sequence[int]) -> NDArray[np.int64]:
    """[tokens, layers, experts], each row in rising order; zeros in layers without."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import Qwen3MoeForCausalLM  # noqa: PLC0415 - heavy

    model: Any = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = np.zeros((len(tokens), LAYERS, CHOSEN), np.int64)
    with torch.no_grad():
        logits = model(torch.tensor([list(tokens)]), output_router_logits=True).router_logits
    for place, layer in enumerate(logits):
        found[:, LAYERS - len(logits) + place] = layer.topk(CHOSEN).indices.sort().values.numpy()
    return found
