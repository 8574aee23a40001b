"""Stand-ins for verl's modules, for tests that run without verl."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def token_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's answer type: the real one where verl is installed, else one with the fields of 0.9.1."""
    if importlib.util.find_spec("verl") is not None:
        return

    class TokenOutput:
        def __init__(
            self,
            token_ids: list[int],
            log_probs: list[float] | None = None,
            stop_reason: str | None = None,
            num_preempted: int | None = None,
            extra_fields: dict[str, Any] | None = None,
        ) -> None:
            self.token_ids, self.log_probs, self.stop_reason = token_ids, log_probs, stop_reason
            self.num_preempted, self.extra_fields = num_preempted, extra_fields

    module = ModuleType("verl.workers.rollout.replica")
    module.__dict__["TokenOutput"] = TokenOutput
    for name in ("verl", "verl.workers", "verl.workers.rollout"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
