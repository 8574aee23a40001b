"""The explanation of an ended run, in the form of the page's views."""

import asyncio

import msgspec

from openseer_core.wire.page import MOST_FINDINGS, Explained
from openseer_driver.explain.explained import explain
from openseer_driver.explain.explanation import Explanation
from openseer_driver.report.trace import Trace
from openseer_driver.run_folder import RunFolder
from openseer_local.explained import possible

SIMULATED = "the simulation is running"


class EndedExplanation:
    """The view of the explanation. The best possible times are missing until a thread has simulated them, once."""

    def __init__(self, folder: RunFolder, trace: Trace, explanation: Explanation) -> None:
        self._folder, self._trace = folder, trace
        self._known = _view(explanation, live=True)
        self._whole: asyncio.Task[Explained] | None = None

    async def view(self) -> bytes:
        """Returns an Explained as JSON. The first call starts the simulation."""
        if self._whole is None:
            self._whole = asyncio.create_task(asyncio.to_thread(self._simulated))
        view = self._whole.result() if self._whole.done() else self._known
        return view.model_dump_json().encode()

    def _simulated(self) -> Explained:
        return _view(explain(self._trace, *possible(self._folder, self._trace)), live=False)


def explanation_of(trace: Trace) -> Explanation:
    """Returns the explanation of a run, without the best possible times."""
    return explain(trace, None, SIMULATED)


def _view(found: Explanation, *, live: bool) -> Explained:
    fields = msgspec.to_builtins(found)
    fields |= {
        "live": live,
        "seconds": found.startup_seconds + found.makespan_seconds,
        "workers": len(found.workers),
        "findings": fields["findings"][:MOST_FINDINGS],
    }
    return Explained.model_validate({name: fields[name] for name in Explained.model_fields if name in fields})
