"""Sources of the routed experts of a job's results."""

import asyncio
from pathlib import Path
from typing import Protocol

from openseer_core.errors import OpenseerError
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Result
from openseer_store.routed.assembly import RoutedExperts, assemble


class RowsUnavailable(OpenseerError):
    """The routed experts of a result cannot be read at the moment (HTTP 503). A result is never sent without them."""

    retryable = True


class RowSource(Protocol):
    """A source of the routed experts of one job's results."""

    async def find(self, result: Result) -> RoutedExperts:
        """Returns the routed experts of a result, which may have gaps. Raises RowsUnavailable."""
        ...


async def rows_of(source: RowSource | None, result: Result) -> RoutedExperts | None:
    """Returns the routed experts of a result; None if the job captures none (`source` None), and for a result that was
    scored and not sampled. Raises RowsUnavailable."""
    if source is None or parse_sampling(result.sampling).score_from is not None:
        return None
    return await source.find(result)


class RowsInFolder:
    """The source of a job whose routed experts are files on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def find(self, result: Result) -> RoutedExperts:
        """Returns the routed experts of a result. Rows that cannot be read are gaps."""
        return await asyncio.to_thread(assemble, self.folder, result)
