"""What the page shows: a job that runs, a run that has ended, and of a job that cannot be opened why."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from openseer_core.ids import GroupId
from openseer_core.manifest.generation import JobMode
from openseer_core.wire.page import JobCard

View = Callable[[], Awaitable[bytes]]
"""Gives the next view as JSON. Raises NotFoundProblem, StoreUnavailableError."""


class GroupViews(Protocol):
    """A group for one viewer."""

    async def view(self) -> bytes:
        """A GroupPage with what is new. Raises NotFoundProblem, ConflictProblem, StoreUnavailableError."""
        ...

    def place(self) -> str:
        """The id of the latest view: whoever connects again with it goes on there."""
        ...


class Listed(Protocol):
    """A job among all."""

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        ...

    @property
    def mode(self) -> JobMode:
        """Of the job."""
        ...

    async def card(self) -> JobCard:
        """The job at a glance. Raises StoreUnavailableError."""
        ...


class Shown(Listed, Protocol):
    """One job's views."""

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
        """GroupPages for one viewer. `index`: only that response; `place`: the id of the last view that came."""
        ...
