"""Runs one weights transaction for a call of a compatible route: names the version, begins, and waits for the end."""

import asyncio
import re
from dataclasses import dataclass

from fastapi import Response
from fastapi.responses import JSONResponse

from openseer_api.compat.live.refusals import error_response
from openseer_api.job.context import JobContext
from openseer_api.routes.weights import publish_weights, take_back
from openseer_core.errors import InputError
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import AdapterSpec, Publish, PublishMode, Source

UPDATE_SECONDS = 3600.0
"""Timeout of a call, in seconds;
then the transaction is cancelled, so that the fleet keeps the old weights if the call fails."""
POLL_SECONDS = 0.05
"""Interval between two reads of the transaction, in seconds."""
_NOT_IN_VERSIONS = re.compile(r"[^A-Za-z0-9._:@+-]")
_MOST_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Update:
    """The outcome of a transaction. `version`: the name of the weights. `status`: of HTTP; 200: served, 400: the fleet
    refused the weights, 409: another transaction has replaced this one, 503: UPDATE_SECONDS are over."""

    status: int
    version: str
    message: str = ""


async def update(
    job: JobContext,
    source: Source,
    version: str | None,
    mode: PublishMode,
    *,
    hint: str,
    adapter: AdapterSpec | None = None,
) -> Update:
    """Publishes weights and waits for the end of the transaction. `hint`: base of the version's name if `version` is
    None. `adapter`: None for the model's own weights.

    If a transaction from the same source is active, the call waits for that one. If it is done and the source has a
    digest, the call returns its outcome; without a digest the folder may have new content, so it is published again.
    Raises PublishRefusedError, BusyProblem, and InputError for an invalid version.
    """
    fleet_spec = (await job.snapshot(fresh=True)).fleet_spec
    transaction = fleet_spec.transaction
    if (
        transaction is None
        or not (transaction.active or (transaction.phase == "done" and source.digest is not None))
        or (transaction.publish.source, transaction.publish.adapter) != (source, adapter)
        or version not in (None, transaction.publish.version)
    ):
        named = _checked(version) if version else _fresh(fleet_spec, hint)
        fleet_spec, _ = await publish_weights(job, Publish(version=named, source=source, mode=mode, adapter=adapter))
        transaction = fleet_spec.transaction
        assert transaction is not None
    return await _follow(job, transaction)


async def _follow(job: JobContext, transaction: WeightsTransaction) -> Update:
    loop, version = asyncio.get_running_loop(), transaction.publish.version
    end = loop.time() + UPDATE_SECONDS
    while True:
        fleet_spec = await job.store.fleet_spec()
        now = fleet_spec.transaction
        if now is None or now.id != transaction.id:
            done = version in (*fleet_spec.versions, *fleet_spec.adapter_versions)
            return Update(200, version) if done else Update(409, version, "another weights transaction has begun since")
        if not now.active:
            return Update(200 if now.phase == "done" else 400, version, now.message)
        if loop.time() > end:
            await take_back(job)
            return Update(
                503, version, f"not done within {UPDATE_SECONDS:g} s: still in {now.phase}; it was rolled back"
            )
        await asyncio.sleep(POLL_SECONDS)


def _checked(version: str) -> str:
    if _NOT_IN_VERSIONS.search(version) or not version[0].isalnum() or len(version) > 128:
        raise InputError(f"weight_version: found {version!r}, allowed: letters, digits and ._:@+-, at most 128")
    return version


def _fresh(fleet_spec: FleetSpec, hint: str) -> str:
    """Returns an unused version name: the hint, followed by a number if that name is used."""
    base = _NOT_IN_VERSIONS.sub("-", hint)[:_MOST_CHARACTERS].lstrip("._:@+-") or "update"
    tried = fleet_spec.transaction.publish.version if fleet_spec.transaction is not None else ""
    taken = {*fleet_spec.versions, *fleet_spec.adapter_versions, tried}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}.{number}"
    return name


def answered(outcome: Update) -> Response:
    """Returns vLLM's response for an outcome."""
    if outcome.status != 200:
        return error_response(outcome.status, outcome.message)
    return JSONResponse({"status": "ok", "message": "Weight update finished", "weight_version": outcome.version})
