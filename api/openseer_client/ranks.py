"""Runs work in the first process of a distributed trainer. All processes raise its error: if only one did, the others
would wait for it for ever."""

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
    """Runs `work` in the first process; all processes wait for it and raise its error.

    `gathered`: values that the processes gather collectively, item by item; `work` may read them. Every process reads
    the iterator to its end, also if `work` fails, because an item arrives only if all processes read.
    """
    error = None
    try:
        if is_first:
            await work()
    except Exception as failure:  # noqa: BLE001 - any error, else the others would wait
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
    """Returns the error in a form that other processes can raise: they may not have the class of a foreign error."""
    if isinstance(error, OpenseerError):
        return error
    raised = OpenseerError(f"{type(error).__name__}: {error}")
    raised.__cause__ = error
    return raised
