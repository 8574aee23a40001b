"""torch, imported at its first use, because the import takes seconds."""

from importlib import import_module
from typing import Any


class _Torch:
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module("torch"), name)


torch: Any = _Torch()
