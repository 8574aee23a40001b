"""torch, imported when it is first used: it takes seconds, which only those who run these tests should wait."""

from importlib import import_module
from typing import Any


class _Torch:
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module("torch"), name)


torch: Any = _Torch()
