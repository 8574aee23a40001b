"""Interfaces of the page's objects: a running job, an ended run, and a job that cannot be opened."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from openseer_core.ids import GroupId
from openseer_core.manifest.generation import JobMode
from openseer_core.wire.page import JobCard

View = Callable[[], Awaitable[bytes]]
"""Returns the next view as JSON. Raises NotFoundProblem, StoreUnavailableError."""


class GroupViews(Protocol):
    """A group for one viewer."""

    async def view(self) -> bytes:
        """A GroupPage with new tokens only. Raises NotFoundProblem, ConflictProblem, StoreUnavailableError."""
        ...

    def place(self) -> str:
        """The id of the latest view: a viewer that reconnects with it continues from there."""
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
        """The job's card. Raises StoreUnavailableError."""
        ...


class Shown(Listed, Protocol):
    """A job with its views."""

    async def job_view(self) -> bytes:
        """A JobView. Raises StoreUnavailableError."""
        ...

    async def job_pulse(self) -> bytes:
        """A JobPulse. Raises StoreUnavailableError."""
        ...

    async def explained(self) -> bytes:
        """An Explained. Raises StoreUnavailableError."""
        ...

    async def batch_view(self, number: int) -> bytes:
        """A BatchView. Raises NotFoundProblem, StoreUnavailableError."""
        ...

    def group_views(self, group: GroupId, index: int | None, place: str = "") -> GroupViews:
        """GroupPages for one viewer. `index`: only that response; `place`: the id of the last view that
        the viewer received."""
        ...
