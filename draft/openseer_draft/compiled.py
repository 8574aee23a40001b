"""Compiles the inner loops by numba to machine code, which is cached on disk and runs without Python's lock."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles `function` at its first call, and loads the cached code in every later process."""
    return njit(cache=True, nogil=True)(function)
