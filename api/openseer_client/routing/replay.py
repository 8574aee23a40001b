"""Makes the routers of a transformers model (torch) choose given experts, for training and for checks.

Qwen3's routers are supported: they return (logits, weights, chosen experts), and the weights are the softmax of all
experts' logits at the chosen ones, divided by their sum if the model's `norm_topk_prob` is set.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_ROUTERS = ("Qwen3MoeTopKRouter",)


@contextmanager
def replayed(model: Any, experts: Sequence[torch.Tensor]) -> Generator[None]:
    """A context in which the model's routers choose `experts`: for each layer with experts, in order, an integer tensor
    [tokens, experts] for all tokens of a forward pass, flattened. The model computes the experts' weights, with
    gradients.

    Raises ValueError for a model without supported routers, and for tensors of other shapes.
    """
    routers = [module for module in model.modules() if type(module).__name__ in _ROUTERS]
    if not routers:
        raise ValueError(f"{type(model).__name__}: no supported router; supported: {', '.join(_ROUTERS)}")
    if len(routers) != len(experts):
        raise ValueError(f"experts: found {len(experts)} layers, needed: the model's {len(routers)} with experts")
    hooks = [router.register_forward_hook(_choose(given)) for router, given in zip(routers, experts, strict=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _choose(given: torch.Tensor) -> Any:
    def hook(router: Any, _: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, weights, chosen = output
        if given.shape != chosen.shape:
            raise ValueError(f"experts: found {list(given.shape)}, needed: {list(chosen.shape)}")
        kept = given.to(chosen)
        shares = torch.softmax(logits, dim=-1, dtype=torch.float32).gather(-1, kept)
        if router.norm_topk_prob:
            shares = shares / shares.sum(-1, keepdim=True)
        return logits, shares.to(weights.dtype), kept

    return hook
