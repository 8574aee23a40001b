"""A file of rows: written records are read, and torn records and those of another file are not."""

import pytest

from openseer_core.routed_rows import RowShape, Stretch
from openseer_store.routed.records import pack_record, read_records

SHAPE = RowShape(2, 3, 1)
NAME = "0.0.7.abc"
FIRST, SECOND = Stretch(4, bytes(range(12))), Stretch(6, bytes(range(100, 106)))


def both() -> bytes:
    return pack_record(NAME, SHAPE, FIRST) + pack_record(NAME, SHAPE, SECOND)


def test_records_are_read_as_they_were_written() -> None:
    assert list(read_records(NAME, both())) == [(SHAPE, FIRST), (SHAPE, SECOND)]
    wide = RowShape(1, 2, 2)
    assert list(read_records(NAME, pack_record(NAME, wide, Stretch(0, b"abcd")))) == [(wide, Stretch(0, b"abcd"))]
    assert (wide.row_bytes, wide.dtype, SHAPE.dtype) == (4, "uint16", "uint8")


@pytest.mark.parametrize("cut", [1, 6, 7, 20, 29])
def test_a_torn_record_and_those_after_it_are_omitted(cut: int) -> None:
    assert list(read_records(NAME, both()[:-cut])) == [(SHAPE, FIRST)]


@pytest.mark.parametrize("place", [0, 5, 9, 13, 17, 21, 24, 30])
def test_a_changed_byte_anywhere_invalidates_a_record(place: int) -> None:
    data = bytearray(both())
    data[place] ^= 1
    assert list(read_records(NAME, bytes(data))) in ([], [(SHAPE, SECOND)])


def test_a_file_under_another_name_has_no_valid_record() -> None:
    assert list(read_records("0.0.8.abc", both())) == []
