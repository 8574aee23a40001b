"""What an event loop has another thread do between two of its steps, and how the outcome comes back."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from openseer_core.errors import LoadError

_LOG = logging.getLogger(__name__)
_REASON_CHARS = 500


class EngineCall:
    """One such thing. Whatever goes wrong is a LoadError: an engine that broke by it shows at its next step."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self.outcome: Future[Any] = Future()

    def run(self) -> None:
        """Does it, in the thread that calls."""
        if not self.outcome.set_running_or_notify_cancel():
            return
        try:
            self.outcome.set_result(self._action())
        except LoadError as error:
            self.outcome.set_exception(error)
        except Exception as error:  # noqa: BLE001 - whatever the engine raises must reach the event loop
            _LOG.exception("the engine could not do what it was asked for")
            self.outcome.set_exception(LoadError(f"the engine: {str(error)[:_REASON_CHARS] or type(error).__name__}"))

    def refuse(self) -> None:
        """It will not be done any more."""
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_exception(LoadError("the engine has ended"))
