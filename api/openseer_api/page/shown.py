"""Interfaces of the page's objects: a running job, an ended run, and a job that cannot be opened."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from openseer_core.ids import GroupId
from openseer_core.manifest.generation import JobMode
from openseer_core.wire.page import JobCard

View = Callable[[], Awaitable[bytes]]
"""Returns the next view as JSON. Raises NotFoundProblem, StoreUnavailableError."""


class GroupViews(Protocol):
    """The views of a group for one viewer."""

    async def view(self) -> bytes:
        """Returns a GroupPage with the tokens since the previous one.
        Raises NotFoundProblem, ConflictProblem, StoreUnavailableError."""
        ...

    def place(self) -> str:
        """Returns the event id of the latest view. A viewer that reconnects with it receives the views after it."""
        ...


class Listed(Protocol):
    """A job in the list of all jobs."""

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        ...

    @property
    def mode(self) -> JobMode:
        """The job's mode."""
        ...

    async def card(self) -> JobCard:
        """Returns the job's card. Raises StoreUnavailableError."""
        ...


class Shown(Listed, Protocol):
    """A job with its views."""

    async def job_view(self) -> bytes:
        """Returns a JobView. Raises StoreUnavailableError."""
        ...

    async def job_pulse(self) -> bytes:
        """Returns a JobPulse. Raises StoreUnavailableError."""
        ...

    async def explained(self) -> bytes:
        """Returns an Explained. Raises StoreUnavailableError."""
        ...

    async def batch_view(self, number: int) -> bytes:
        """Returns a BatchView. Raises NotFoundProblem, StoreUnavailableError."""
        ...

    def group_views(self, group: GroupId, index: int | None, place: str = "") -> GroupViews:
        """Returns the views of a group for one viewer. `index`: shows only this response, None: all; `place`: the event
        id of the last view that the viewer received."""
        ...
