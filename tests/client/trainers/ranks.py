"""Two processes of a trainer that gather tensors together, with a rollout of verl's kind and stand-ins for verl itself.

Run as a module with RANK and FOLDER: writes one line with the raised error for each call of the rollout.
"""

# The stand-ins have no types.
# pyright: reportUnknownMemberType=false, reportAttributeAccessIssue=false

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from openseer_client import Client
from openseer_client.errors import error_of
from openseer_core.errors import OpenseerError
from openseer_core.wire.problem import Problem

ITEMS = 4


class BaseRollout:
    """The part of verl's class that the rollout uses."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any) -> None:
        self.config = config


async def ensure_async_iterator(iterable: Iterator[Any]) -> AsyncIterator[Any]:
    """The same as in verl."""
    for item in iterable:
        yield item


def stand_in(name: str, **members: Any) -> None:
    """Registers a module in place of verl's."""
    module = ModuleType(name)
    for member, value in members.items():
        setattr(module, member, value)
    sys.modules[name] = module


def gathered() -> Iterator[tuple[str, Any]]:
    """Named tensors; each read is a collective call of all processes."""
    for place in range(ITEMS):
        tensor = torch.ones(1)
        dist.all_reduce(tensor)
        yield f"t{place}", tensor


def noted(*_: object) -> None:
    """Ignores its arguments; verl would store them."""


def refused(*_: Any) -> None:
    raise error_of(Problem(title="Conflict", status=409, detail="another call was first"), "POST /v1/release")


def told(call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        asyncio.run(call())
    except OpenseerError as error:
        sys.stdout.write(f"{type(error).__name__} {str(error).splitlines()[0]}\n")


def main(rank: int, folder: Path) -> None:
    for name in ("verl", "verl.workers", "verl.workers.rollout"):
        stand_in(name)
    stand_in("verl.workers.rollout.base", _ROLLOUT_REGISTRY={}, BaseRollout=BaseRollout)
    registry = SimpleNamespace(register=noted)
    stand_in("verl.workers.rollout.replica", RolloutMode=None, RolloutReplica=object, RolloutReplicaRegistry=registry)
    stand_in("verl.workers.rollout.utils", ensure_async_iterator=ensure_async_iterator)
    from openseer_client.verl_rollout import Rollout  # noqa: PLC0415

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    no_folder = folder / "a-file"
    no_folder.touch()
    custom = {"weights_folder": str(no_folder), "share_gpus": True, "url": "http://127.0.0.1:9", "token": "t"}
    rollout = Rollout(SimpleNamespace(custom=custom), None, None)
    Client.release = refused
    told(lambda: rollout.update_weights(gathered()))
    told(lambda: rollout.resume(["graphs"]))
    told(rollout.release)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
