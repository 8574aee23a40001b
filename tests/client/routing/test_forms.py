"""Routed experts for trainers: arrays with gaps, and the trainers' forms."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from openseer_client.routing import forms
from openseer_client.routing.arrays import from_run, from_wire
from openseer_core.wire.routed import RoutedRows

ROWS = np.array([[[0, 0], [1, 2]], [[0, 0], [3, 4]], [[0, 0], [250, 0]]], np.int16)


def wire(kind: str = "uint8", **more: object) -> RoutedRows:
    data = base64.b64encode(ROWS.astype("<u1" if kind == "uint8" else "<u2").tobytes()).decode()
    return RoutedRows.model_validate({"shape": [3, 2, 2], "dtype": kind, "data": data, **more})


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_result_carries_an_array(kind: str) -> None:
    found = from_wire(wire(kind))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, ROWS)


def test_a_gap_is_minus_one_throughout() -> None:
    found = from_wire(wire(start=10, gaps=1, missing=[[11, 12]]))
    assert (found[1] == -1).all()
    np.testing.assert_array_equal(found[[0, 2]], ROWS[[0, 2]])


def test_a_run_has_arrays_in_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS.astype(np.uint8))
    line = {"group": "g", "index": 1, "routed_experts": {"file": "a.npy", "missing": [[0, 1]]}}
    found = from_run(tmp_path, json.dumps(line))
    assert (found[0] == -1).all()
    np.testing.assert_array_equal(found[1:], ROWS[1:])
    with pytest.raises(ValueError, match="group g, response 1: no routed experts"):
        from_run(tmp_path, line | {"routed_experts": None})
    with pytest.raises(ValueError, match=r"no routed experts; set spec\.routing\.capture"):
        from_run(tmp_path, {"group": "g", "index": 1})


def test_each_trainer_gets_its_form() -> None:
    assert forms.for_verl(ROWS).dtype == np.int16
    slime = np.frombuffer(base64.b64decode(forms.for_slime(ROWS, 1)), np.int32)
    np.testing.assert_array_equal(slime.reshape(-1, 2, 2), ROWS[1:])
    padded = forms.for_nemo_rl(ROWS, 5)
    np.testing.assert_array_equal(padded[:3], ROWS)
    assert (padded[3:] == -1).all()
    prime = forms.for_prime_rl(ROWS, 1)
    assert (prime["shape"], prime["dtype"], prime["start"]) == ([2, 2, 2], "uint8", 1)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(prime["data"]), np.uint8).reshape(2, 2, 2), ROWS[1:])
    [megatron] = forms.for_megatron(ROWS)
    np.testing.assert_array_equal(megatron, ROWS[:, 1])
    assert len(forms.for_megatron(ROWS, [0, 1])) == 2


def test_layers_of_single_experts_must_be_named() -> None:
    with pytest.raises(ValueError, match="layers: with one expert per token"):
        forms.for_megatron(ROWS[:, :, :1])
    assert len(forms.for_megatron(ROWS[:, :, :1], [0, 1])) == 2


def test_a_gap_is_refused_in_forms_that_cannot_mark_it() -> None:
    gappy = from_wire(wire(gaps=1, missing=[[1, 2]]))
    for form in (forms.for_verl, forms.for_slime, forms.for_prime_rl, forms.for_megatron):
        with pytest.raises(ValueError, match="1 of 3 rows are missing"):
            form(gappy)
    assert (forms.for_nemo_rl(gappy, 3)[1] == -1).all()
    with pytest.raises(ValueError, match="length: found 2, needed: at least the 3 positions"):
        forms.for_nemo_rl(gappy, 2)
