"""Routed experts as numpy arrays."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openseer_core.wire.results import ResultItem
from openseer_core.wire.routed import RoutedRows

MISSING = -1
"""The value of each entry of a missing row."""


def routed_experts(item: ResultItem) -> NDArray[np.int16]:
    """Returns the routed experts of a result as [positions, layers, experts], MISSING in gaps. The positions are those
    of all tokens of prompt and response except the last.

    Raises ValueError for a result without routed experts: its job captures none, or its tokens were given and scored.
    """
    if item.routed_experts is None:
        raise ValueError(
            f"group {item.group}, response {item.index}: no routed experts; set spec.routing.capture in the job"
        )
    return from_wire(item.routed_experts)


def from_wire(rows: RoutedRows) -> NDArray[np.int16]:
    """Returns the array in the field `routed_experts` of the API's result, as `routed_experts` does."""
    flat = np.frombuffer(base64.b64decode(rows.data), np.dtype(rows.dtype).newbyteorder("<"))
    return _with_gaps(flat.reshape(rows.shape), [(first - rows.start, end - rows.start) for first, end in rows.missing])


def from_run(folder: Path | str, line: str | bytes | dict[str, Any]) -> NDArray[np.int16]:
    """Returns the array for a line of results.jsonl (text or parsed) and the folder of its run, as `routed_experts`
    does.

    Raises ValueError for a line without routed experts, OSError if the folder lacks the file that the line names.
    """
    parsed: dict[str, Any] = line if isinstance(line, dict) else json.loads(line)
    routed = parsed.get("routed_experts")
    if routed is None:
        who = f"group {parsed['group']}, response {parsed['index']}"
        raise ValueError(f"{who}: no routed experts; set spec.routing.capture in the job")
    return _with_gaps(np.load(Path(folder) / routed["file"]), routed["missing"])


def _with_gaps(found: NDArray[Any], missing: list[tuple[int, int]]) -> NDArray[np.int16]:
    array = found.astype(np.int16)
    for first, end in missing:
        array[first:end] = MISSING
    return array
