"""One weights transaction from a call of another protocol: named, begun, followed to its end."""

import asyncio
import re
from dataclasses import dataclass

from openseer_api.job.context import JobContext
from openseer_api.routes.weights import publish_weights, take_back
from openseer_core.errors import InputError
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Publish, PublishMode, Source

UPDATE_SECONDS = 3600.0
"""Longest a call waits; then the transaction is taken back, so that what the caller is told is what is."""
POLL_SECONDS = 0.05
_NOT_IN_VERSIONS = re.compile(r"[^A-Za-z0-9._:@+-]")
_MOST_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Update:
    """How it ended. `version`: what the weights are called."""

    done: bool
    version: str
    message: str


async def update(job: JobContext, source: Source, version: str | None, mode: PublishMode, *, hint: str) -> Update:
    """Moves the fleet to new weights and waits for it. `hint`: what they are called where the caller gave no version.

    A transaction from the same source that is under way is joined. Raises PublishRefusedError, BusyProblem.
    """
    orders = (await job.glance(fresh=True)).orders
    ongoing = orders.active_transaction
    if ongoing is None or ongoing.publish.source != source or version not in (None, ongoing.publish.version):
        named = _checked(version) if version else _fresh(orders, hint)
        orders, _ = await publish_weights(job, Publish(version=named, source=source, mode=mode))
        ongoing = orders.transaction
        assert ongoing is not None
    return await _follow(job, ongoing)


async def _follow(job: JobContext, ongoing: WeightsTransaction) -> Update:
    loop, version = asyncio.get_running_loop(), ongoing.publish.version
    end = loop.time() + UPDATE_SECONDS
    while True:
        orders = await job.store.fleet_spec()
        now = orders.transaction
        if now is None or now.id != ongoing.id:
            done = version in orders.versions
            return Update(done, version, "" if done else "another transaction has followed it")
        if not now.active:
            return Update(now.phase == "done", version, now.message)
        if loop.time() > end:
            await take_back(job)
            return Update(False, version, f"not done within {UPDATE_SECONDS:g} s: still in {now.phase}; taken back")
        await asyncio.sleep(POLL_SECONDS)


def _checked(version: str) -> str:
    if _NOT_IN_VERSIONS.search(version) or not version[0].isalnum() or len(version) > 128:
        raise InputError(f"weight_version: found {version!r}, allowed: letters, digits and ._:@+-, at most 128")
    return version


def _fresh(orders: FleetSpec, hint: str) -> str:
    """A name that no weights had: the hint, with a number where it is taken."""
    base = _NOT_IN_VERSIONS.sub("-", hint)[:_MOST_CHARACTERS].lstrip("._:@+-") or "update"
    tried = orders.transaction.publish.version if orders.transaction is not None else ""
    taken = {*orders.versions, tried}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}.{number}"
    return name
