"""numpy reads the arrays that are written without numpy."""

import io

import numpy as np
import pytest

from openseer_core.routed_rows import RowShape
from openseer_store.routed.assembly import RoutedExperts
from openseer_store.routed.npy import marked_npy, npy


@pytest.mark.parametrize("positions", [0, 1, 12345])
def test_numpy_reads_wide_and_empty_arrays(positions: int) -> None:
    data = np.arange(positions * 6, dtype="<u2").tobytes()
    found = RoutedExperts(positions, data, RowShape(2, 3, 2), ())
    for written in (npy(found), marked_npy(found)):
        array = np.load(io.BytesIO(written))
        assert (array.shape, array.dtype) == ((positions, 2, 3), np.uint16)
        assert array.tobytes() == data


@pytest.mark.parametrize("item_bytes", [1, 2])
def test_missing_rows_are_marked_instead_of_hidden_by_zeros(item_bytes: int) -> None:
    rows = np.arange(5 * 4).reshape(5, 2, 2)
    data = rows.astype(f"<u{item_bytes}").tobytes()
    array = np.load(io.BytesIO(marked_npy(RoutedExperts(5, data, RowShape(2, 2, item_bytes), ((1, 3), (4, 5))))))
    assert array.dtype == np.int32
    expected = rows.copy()
    expected[[1, 2, 4]] = -1
    np.testing.assert_array_equal(array, expected)


def test_without_any_row_the_array_has_no_layers() -> None:
    assert np.load(io.BytesIO(marked_npy(RoutedExperts(7, b"", None, ((0, 7),))))).shape == (7, 0, 0)
