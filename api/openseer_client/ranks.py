"""What the first of a trainer's processes does for all: its error is everybody's, for who fails alone leaves the others
waiting."""

# torch's types are partial: what comes from it is Any here.
# pyright: reportUnknownMemberType=false

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import torch.distributed

from openseer_core.errors import OpenseerError


async def by_first(
    is_first: bool, work: Callable[[], Awaitable[None]], gathered: AsyncIterator[Any] | None = None
) -> None:
    """The first process does the work, and all wait for it and raise what it has raised.

    `gathered`: what all of them gather together, item by item; `work` may read it. It is read to its end by all, also
    where `work` fails, for an item comes only while all read on.
    """
    error = None
    try:
        if is_first:
            await work()
    except Exception as failure:  # noqa: BLE001 - whatever it is, the others must not wait
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
    """An error as it is raised in other processes, too, which may not know its kind."""
    if isinstance(error, OpenseerError):
        return error
    told = OpenseerError(f"{type(error).__name__}: {error}")
    told.__cause__ = error
    return told
