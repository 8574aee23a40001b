"""How the inner loops are compiled: by numba, to machine code that is kept on disk, without holding Python's lock."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function` at its first call, and reads that back in every later process."""
    return njit(cache=True, nogil=True)(function)
