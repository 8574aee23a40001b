"""The LoRA adapters that an engine has loaded; each load has a new number for vLLM."""

import itertools
from typing import Any

from openseer_core.errors import LoadError
from openseer_worker.engine import NewAdapter


class Adapters:
    """The loaded adapters by version: each with vLLM's request argument and the salt of its cached KV. For the engine's
    thread only. `most`: limit of loaded adapters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loaded: dict[str, tuple[Any, str]] = {}
        self._numbers = itertools.count(1)

    def __contains__(self, version: str) -> bool:
        return version in self._loaded

    def request(self, version: str) -> Any:
        """Returns vLLM's LoRARequest for a loaded version; None for "" (the weights without an adapter)."""
        return self._loaded[version][0] if version else None

    def salt(self, version: str) -> str:
        """Returns the salt of KV blocks that were computed with a loaded version."""
        return self._loaded[version][1]

    def load(self, core: Any, adapter: NewAdapter) -> None:
        """Loads an adapter, in place of a loaded one of the same version.

        Raises LoadError if `most` others are loaded, vLLM refuses the adapter or the model lacks one of its modules;
        also vLLM's errors. After an error the adapter is removed: vLLM would keep a partly loaded one, and its slot.
        """
        from vllm.lora.request import LoRARequest

        self.drop(core, adapter.version)
        if len(self._loaded) >= self._most:
            raise LoadError(f"{len(self._loaded)} adapters are loaded, allowed: {self._most}; drop one first")
        number = next(self._numbers)
        # vLLM identifies adapters by name in some places, and by number in others.
        request = LoRARequest(f"{adapter.version}#{number}", number, str(adapter.folder))
        try:
            if not core.add_lora(request):
                raise LoadError(f"vLLM refuses the adapter {adapter.version}")
            self._check_modules(core, adapter, number)
        except Exception:
            core.remove_lora(number)
            raise
        self._loaded[adapter.version] = request, adapter.salt

    def _check_modules(self, core: Any, adapter: NewAdapter, number: int) -> None:
        """Raises LoadError if the adapter has a module that no rank's part of the model has: vLLM would ignore it."""
        of_ranks = [set(names) for names in core.collective_rpc("unplaced_modules", args=(number,))]
        unplaced = sorted(set.intersection(*of_ranks))
        if unplaced:
            others = f", and {len(unplaced) - 1} others of it" if len(unplaced) > 1 else ""
            raise LoadError(
                f"{adapter.folder}: the model has no module {unplaced[0]}{others}; the adapter is of another model"
            )

    def drop(self, core: Any, version: str) -> None:
        """Removes a version, if it is loaded."""
        if version in self._loaded:
            core.remove_lora(self._loaded.pop(version)[0].lora_int_id)

    def clear(self, core: Any) -> None:
        """Removes all versions."""
        for version in list(self._loaded):
            self.drop(core, version)
