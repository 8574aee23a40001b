"""Rows in numpy's file format, written without numpy."""

from array import array
from sys import byteorder

from openseer_core.routed_rows import RowShape
from openseer_store.routed.assembly import RoutedExperts

_ALIGNED = 64
"""Alignment of the numbers in a file, in bytes."""
_MISSING = -1


def npy(found: RoutedExperts) -> bytes:
    """The rows as an array, [positions, layers, experts], in numpy's file format 1.0; a missing row is all zeros."""
    code = "|u1" if found.shape is None or found.shape.item_bytes == 1 else "<u2"
    return _head(found, code) + found.rows


def marked_npy(found: RoutedExperts) -> bytes:
    """As `npy`; but if the result lacks rows, an int32 array with -1 in the missing rows."""
    if found.shape is None or not found.missing:
        return npy(found)
    numbers = array("i", _numbers(found.rows, found.shape))
    size = found.shape.layers * found.shape.experts
    for start, end in found.missing:
        numbers[start * size : end * size] = array("i", [_MISSING]) * ((end - start) * size)
    if byteorder == "big":
        numbers.byteswap()
    return _head(found, "<i4") + numbers.tobytes()


def _numbers(rows: bytes | bytearray, shape: RowShape) -> "array[int]":
    numbers = array("B" if shape.item_bytes == 1 else "H", rows)
    if byteorder == "big":
        numbers.byteswap()
    return numbers


def _head(found: RoutedExperts, code: str) -> bytes:
    header = repr({"descr": code, "fortran_order": False, "shape": found.array_shape})
    filled = header + " " * (-(10 + len(header) + 1) % _ALIGNED) + "\n"
    return b"\x93NUMPY\x01\x00" + len(filled).to_bytes(2, "little") + filled.encode()
