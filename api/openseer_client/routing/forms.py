"""Converts routed experts to the formats of trainers. `routed`: an array of `arrays`, [positions, layers, experts].

A format without a value for gaps raises ValueError if there are gaps, because a trainer would read them as experts. The
last token of a response has no row, because the model computed nothing from it.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openseer_client.routing.arrays import MISSING


def for_verl(routed: NDArray[np.int16]) -> NDArray[np.int16]:
    """Returns verl's `routed_experts` of a sample: [positions, layers, experts], int16. Raises ValueError for gaps."""
    return _whole(routed)


def for_slime(routed: NDArray[np.int16], start: int = 0) -> str:
    """Returns `meta_info.routed_experts` in SGLang's form, which slime reads: int32 in base64, from position `start`
    on. Raises ValueError for gaps."""
    return base64.b64encode(_whole(routed)[start:].astype("<i4").tobytes()).decode()


def for_nemo_rl(routed: NDArray[np.int16], length: int) -> NDArray[np.int32]:
    """Returns NeMo-RL's rows of a sequence padded to `length`: [length, layers, experts], int32, -1 for gaps and
    padding. Raises ValueError if `length` is less than the number of positions."""
    if length < len(routed):
        raise ValueError(f"length: found {length}, needed: at least the {len(routed)} positions that have rows")
    padded = np.full((length, *routed.shape[1:]), MISSING, np.int32)
    padded[: len(routed)] = routed
    return padded


def for_prime_rl(routed: NDArray[np.int16], start: int = 0) -> dict[str, Any]:
    """Returns prime-rl's payload from position `start` on: data (uint8 or uint16 in base64), shape, dtype, start.
    Raises ValueError for gaps."""
    rows = _whole(routed)[start:]
    kind = "uint8" if rows.size == 0 or rows.max() < 256 else "uint16"
    data = base64.b64encode(rows.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()
    return {"data": data, "shape": list(rows.shape), "dtype": kind, "start": start}


def for_megatron(routed: NDArray[np.int16], layers: Sequence[int] | None = None) -> list[NDArray[np.int64]]:
    """Returns arrays for Megatron's RouterReplay.set_replay_data, which requires them as tensors: for each layer with
    experts [positions, experts], int64. `layers`: numbers of these layers; None: all layers with a value other than 0.
    Raises ValueError for gaps, and for None if each token has one expert: then a layer that is all 0 may be a
    choice."""
    rows = _whole(routed)
    if layers is None and rows.shape[2] == 1:
        raise ValueError("layers: with one expert per token zeros may be a choice; name the layers with experts")
    chosen = [number for number in range(rows.shape[1]) if rows[:, number].any()] if layers is None else layers
    return [rows[:, number].astype(np.int64) for number in chosen]


def _whole(routed: NDArray[np.int16]) -> NDArray[np.int16]:
    gaps = int((routed == MISSING).any(axis=(1, 2)).sum())
    if gaps:
        raise ValueError(f"{gaps} of {len(routed)} rows are missing; leave this response out, or do not replay it")
    return routed
