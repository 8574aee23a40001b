"""The shape of a model's rows of routed experts, from vLLM's configuration; imports neither vLLM nor torch."""

from typing import Any

from openseer_core.errors import ModelError
from openseer_core.routed_rows import RowShape

OPTION = "openseer_routes"
"""Key in vLLM's `additional_config`: whether routed experts are captured."""


def row_shape(model: Any) -> RowShape:
    """Returns the shape of rows. `model`: vLLM's ModelConfig. Raises ModelError for a model without experts."""
    layers, experts, chosen = (
        model.get_total_num_hidden_layers(),
        model.get_num_experts(),
        model.get_num_experts_per_tok(),
    )
    if experts <= 0 or chosen <= 0 or layers <= 0:
        raise ModelError(f"spec.routing.capture: the model {model.model} has no experts; remove spec.routing")
    return RowShape(layers, chosen, 1 if experts <= 256 else 2)


def wants_routes(config: Any) -> bool:
    """Whether an engine with this VllmConfig captures routed experts."""
    return bool((config.additional_config or {}).get(OPTION))
