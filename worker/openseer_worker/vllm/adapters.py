"""The LoRA adapters that an engine has, each under a number that vLLM has never seen before."""

import itertools
from typing import Any

from openseer_core.errors import LoadError
from openseer_worker.engine import NewAdapter


class Adapters:
    """By version: what vLLM is given with a request, and the salt of its cached KV. For the engine's thread alone.
    `most`: that are loaded at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: dict[str, tuple[Any, str]] = {}
        self._numbers = itertools.count(1)

    def __contains__(self, version: str) -> bool:
        return version in self._loaded

    def request(self, version: str) -> Any:
        """vLLM's LoRARequest for a loaded version; None for "", the weights alone."""
        return self._loaded[version][0] if version else None

    def salt(self, version: str) -> str:
        """Of the KV that is cached with a loaded version."""
        return self._loaded[version][1]

    def load(self, core: Any, adapter: NewAdapter) -> None:
        """Raises LoadError where vLLM does not take it, and whatever vLLM raises."""
        from vllm.lora.request import LoRARequest

        self.drop(core, adapter.version)
        if len(self._loaded) >= self._most:
            raise LoadError(f"{len(self._loaded)} adapters are loaded, allowed: {self._most}; drop one first")
        number = next(self._numbers)
        # vLLM tells adapters apart by their names in some places, and by their numbers in others.
        request = LoRARequest(f"{adapter.version}#{number}", number, str(adapter.folder))
        if not core.add_lora(request):
            raise LoadError(f"vLLM has not taken the adapter {adapter.version}")
        self._loaded[adapter.version] = request, adapter.salt

    def drop(self, core: Any, version: str) -> None:
        """Nothing happens where it is not loaded."""
        if version in self._loaded:
            core.remove_lora(self._loaded.pop(version)[0].lora_int_id)

    def clear(self, core: Any) -> None:
        """Drops all."""
        for version in list(self._loaded):
            self.drop(core, version)
