"""The operator's process: `python -m openseer_operator.main`. Puts the pieces together and takes them down in order."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from openseer_core.errors import OpenseerError
from openseer_operator.control.apply import Applier
from openseer_operator.control.handlers import Watch, take_signals
from openseer_operator.control.health import checks_of, served
from openseer_operator.control.loop import Loop
from openseer_operator.control.metrics import Board, Metrics
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.stores import Stores
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.kube.lease import Elector
from openseer_operator.settings import OperatorSettings

FINISH_SECONDS = 15.0
"""Looks that run when the process is asked to end have so long to finish."""
WATCH_STOP_SECONDS = 10.0
"""What kopf has to close its watches."""

log = logging.getLogger("openseer_operator")


class Operator:
    """One replica: waits for the lease, works while it holds it."""

    def __init__(self, api: Api, settings: OperatorSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._cache = Cache()
        self._board = Board(calls=api.calls)
        self._metrics = Metrics(self._board)
        self._elector = Elector(api, settings.namespace, settings.lease, settings.identity)
        events = Events(api, settings)
        self._stores = Stores(api, self._changed, events.announce)
        self._census = Census(api, self._cache, settings.watched, self._changed)
        observer = Observer(self._cache, self._census, self._stores, settings)
        applier = Applier(api, self._cache, self._census, self._stores, events, settings)
        reconciler = Reconciler(api, self._cache, self._census, self._stores, observer, applier, self._board, settings)
        self._loop = Loop(reconciler.look, self._metrics.looked, reconciler.is_new)
        self._watch = Watch(self._cache, settings, self._changed, self._census.hurry)
        self._checks = checks_of(api, self._elector, self._loop, self._census)
        self._board.leads = lambda: self._elector.leads
        self._board.depth, self._board.lag = (lambda: self._loop.depth), (lambda: self._loop.lag)

    def stop(self) -> None:
        """Asks the replica to end in order."""
        self._stopping.set()

    async def run(self) -> bool:
        """Until `stop` (True) or until the lease is lost (False). Raises what broke."""
        async with served(self._settings.http_port, self._checks, self._ready, self._metrics.registry):
            if not await self._or_stopped(self._elector.acquire()):
                return True
            try:
                return await self._lead()
            finally:
                await self._elector.release()

    async def _lead(self) -> bool:
        """Every part runs until the first ends; then looks are finished, then watches closed."""
        looks = asyncio.create_task(self._loop.run(), name="looks")
        held = asyncio.create_task(self._elector.hold(), name="lease")
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        work = asyncio.create_task(self._work(), name="work")
        parts: set[asyncio.Task[Any]] = {looks, held, stopped, work}
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
            return stopped in done
        finally:
            self._loop.stop()
            if self._elector.leads:
                await asyncio.wait([looks], timeout=FINISH_SECONDS)
            looks.cancel()  # without the lease nothing is written any more, another replica may lead by now
            # kopf takes every task that is younger than itself for its own, and waits for it.
            await self._stores.close()
            self._watch.stop()
            await asyncio.wait([work], timeout=WATCH_STOP_SECONDS)
            for part in parts:
                part.cancel()
            await asyncio.wait(parts)

    async def _work(self) -> None:
        """The cache first, so that nothing is decided on half of what there is."""
        await self._census.prime()
        for key in list(self._cache.keys()):
            self._loop.add(key)
        log.info("%d jobs", len(self._cache))
        census = asyncio.create_task(self._census.run(), name="census")
        try:
            await self._watch.run(self.stop)
        finally:
            census.cancel()
            with suppress(asyncio.CancelledError):
                await census

    def _changed(self, key: tuple[str, str]) -> None:
        self._loop.add(key)

    def _ready(self) -> str:
        """A replica that waits is ready: it can take over."""
        return "" if self._watch.started or not self._elector.leads else "starting"

    async def _or_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work was finished before the process was asked to end."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stopping.wait())
        done, rest = await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for one in rest:
            one.cancel()
            await asyncio.wait([one])
        if task in done:
            task.result()
        return task in done


async def serve(settings: OperatorSettings) -> int:
    """Runs one replica; the exit code of the process. A replica that lost its lease starts anew, with nothing known."""
    api = await Api.connect()
    try:
        operator = Operator(api, settings)
        take_signals(operator.stop)
        return 0 if await operator.run() else 1
    finally:
        await api.close()


def main() -> int:
    """The entry point; errors that a person can mend are one line."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        return asyncio.run(serve(OperatorSettings.read()))
    except OpenseerError as error:
        log.error("error: %s", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
