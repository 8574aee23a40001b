"""Converts routed experts into the formats of trainers. `routed`: of `arrays`, [positions, layers, experts].

Formats without a value for gaps raise ValueError for them: a trainer would take a gap for an expert. The last token of
a response has no row, for nothing was computed from it.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openseer_client.routing.arrays import MISSING


def for_verl(routed: NDArray[np.int16]) -> NDArray[np.int16]:
    """verl's `routed_experts` of a sample: [positions, layers, experts], int16."""
    return _whole(routed)


def for_slime(routed: NDArray[np.int16], start: int = 0) -> str:
    """`meta_info.routed_experts` as SGLang gives it and slime reads it: int32 in base64, from position `start` on."""
    return base64.b64encode(_whole(routed)[start:].astype("<i4").tobytes()).decode()


def for_nemo_rl(routed: NDArray[np.int16], length: int) -> NDArray[np.int32]:
    """NeMo-RL's rows of a sequence padded to `length`: [length, layers, experts], -1 for gaps and padding."""
    if length < len(routed):
        raise ValueError(f"length: found {length}, needed: at least the {len(routed)} positions that have rows")
    padded = np.full((length, *routed.shape[1:]), MISSING, np.int32)
    padded[: len(routed)] = routed
    return padded


def for_prime_rl(routed: NDArray[np.int16], start: int = 0) -> dict[str, Any]:
    """prime-rl's payload, from position `start` on: data in base64, shape, dtype, start."""
    rows = _whole(routed)[start:]
    kind = "uint8" if rows.size == 0 or rows.max() < 256 else "uint16"
    data = base64.b64encode(rows.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()
    return {"data": data, "shape": list(rows.shape), "dtype": kind, "start": start}


def for_megatron(routed: NDArray[np.int16], layers: Sequence[int] | None = None) -> list[NDArray[np.int64]]:
    """Arrays for Megatron's RouterReplay.set_replay_data, which takes them as tensors: for each layer with experts
    [positions, experts]. `layers`: numbers of these layers; None: all layers with a value other than 0. Raises
    ValueError for gaps, and for None with one expert per token, where a layer may have chosen expert 0 throughout."""
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
