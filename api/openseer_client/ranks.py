"""Work that the first of a trainer's processes does for all. All raise its error: a process that fails alone would
leave the others waiting."""

# torch's types are partial: its values are Any here.
# pyright: reportUnknownMemberType=false

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import torch.distributed

from openseer_core.errors import OpenseerError


async def by_first(
    is_first: bool, work: Callable[[], Awaitable[None]], gathered: AsyncIterator[Any] | None = None
) -> None:
    """The first process does `work`; all processes wait for it and raise its error.

    `gathered`: values that all processes gather together, item by item; `work` may read them. All read it to its end,
    also if `work` fails, for an item arrives only while all read.
    """
    error = None
    try:
        if is_first:
            await work()
    except Exception as failure:  # noqa: BLE001 - of any kind: the others must not wait
        error = for_all(failure)
    if gathered is not None:
        try:
            async for _ in gathered:
                pass
        except Exception as failure:  # noqa: BLE001
            error = error or for_all(failure)
    errors: list[Any] = [error]
    if torch.distributed.is_initialized():
        await asyncio.to_thread(torch.distributed.broadcast_object_list, errors, src=0)
    if error is not None or errors[0] is not None:
        raise error or errors[0]


def for_all(error: Exception) -> OpenseerError:
    """The error in a form that other processes can raise, which may not have its class."""
    if isinstance(error, OpenseerError):
        return error
    raised = OpenseerError(f"{type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
