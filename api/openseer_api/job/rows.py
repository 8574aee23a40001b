"""Where the API finds the routed experts of a job's results."""

import asyncio
from pathlib import Path
from typing import Protocol

from openseer_core.errors import OpenseerError
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Result
from openseer_store.routed.assembly import RoutedExperts, assemble


class RowsUnavailable(OpenseerError):
    """Nobody says at the moment which rows there are of a result (HTTP 503); it is not told without them."""

    retryable = True


class RowSource(Protocol):
    """The rows of one job's results."""

    async def find(self, result: Result) -> RoutedExperts:
        """Those of a result, gaps included. Raises RowsUnavailable."""
        ...


async def rows_of(source: RowSource | None, result: Result) -> RoutedExperts | None:
    """Those of a result; None where none are captured, and of tokens that were given and scored. Raises
    RowsUnavailable."""
    if source is None or parse_sampling(result.sampling).score_from is not None:
        return None
    return await source.find(result)


class RowsInFolder:
    """Of a job whose rows lie on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def find(self, result: Result) -> RoutedExperts:
        """What cannot be read is a gap."""
        return await asyncio.to_thread(assemble, self.folder, result)
