"""Calls from an event loop that the engine's thread runs between two steps; a future returns the result."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from openseer_core.errors import LoadError

_LOG = logging.getLogger(__name__)
_REASON_CHARS = 500


class EngineCall:
    """One call. Every error of its action becomes a LoadError in `outcome`; if it broke the engine, the next step
    fails."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self.outcome: Future[Any] = Future()

    def run(self) -> None:
        """Runs the call, in the current thread."""
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            self.outcome.set_result(self._action())
        except LoadError as error:
            self.outcome.set_exception(error)
        except Exception as error:  # noqa: BLE001 - any error of the engine must reach the event loop
            _LOG.exception("a call of the engine failed")
            self.outcome.set_exception(LoadError(f"the engine: {str(error)[:_REASON_CHARS] or type(error).__name__}"))

    def refuse(self) -> None:
        """Fails the call: the engine has stopped."""
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_exception(LoadError("the engine has ended"))
