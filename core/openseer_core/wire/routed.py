"""Routed experts as JSON: the experts that processed the tokens of a result."""

from typing import Annotated, Literal

from pydantic import Field

from openseer_core.json_model import JsonModel

Span = Annotated[tuple[int, int], Field(strict=False)]


class RoutedRows(JsonModel):
    """An array of `shape` [positions, layers, experts]; row i belongs to position `start` + i of prompt and response.

    The last token has no row, because the model did not compute its successor. Layers without experts contain zeros.
    `data`: the experts' numbers, little-endian, in base64. `gaps`: number of missing rows; `missing`: their spans
    [start, end). Missing rows are zeros in the data, and -1 in the result of `openseer_client.routing`.
    """

    start: int = 0
    shape: Annotated[tuple[int, int, int], Field(strict=False)]
    dtype: Literal["uint8", "uint16"]
    data: str
    gaps: int = 0
    missing: list[Span] = Field(default_factory=list[Span])
