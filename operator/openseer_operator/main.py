"""The operator's process: `python -m openseer_operator.main`. Creates its parts and stops them in order."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from openseer_core.errors import OpenseerError
from openseer_operator.control.apply import Applier
from openseer_operator.control.health import health_checks, serve_http
from openseer_operator.control.loop import Loop
from openseer_operator.control.metrics import Metrics, OperatorState
from openseer_operator.control.observe import Observer
from openseer_operator.control.reconcile import Reconciler
from openseer_operator.control.store_poller import StorePoller
from openseer_operator.control.watch import Watch, install_signal_handlers
from openseer_operator.kube.api import Api
from openseer_operator.kube.cache import Cache
from openseer_operator.kube.census import Census
from openseer_operator.kube.events import Events
from openseer_operator.kube.lease import Elector
from openseer_operator.kube.node_repair import NodeRepair
from openseer_operator.settings import OperatorSettings
from openseer_process.logs import start_log

LOOP_STOP_SECONDS = 15.0
"""Timeout for the running reconcile steps when the process ends, in seconds."""
WATCH_STOP_SECONDS = 10.0
"""Timeout for kopf to close its watches when the process ends, in seconds."""

log = logging.getLogger("openseer_operator")


class Operator:
    """One replica: waits for the lease, and reconciles jobs while it holds the lease."""

    def __init__(self, api: Api, settings: OperatorSettings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._cache = Cache()
        self._state = OperatorState(calls=api.calls)
        self._metrics = Metrics(self._state)
        self._elector = Elector(api, settings.namespace, settings.lease, settings.identity)
        events = Events(api, settings, lambda job, node: self._repair.suspect(job, node))
        self._repair = NodeRepair(api, settings, events.tell_node)
        self._poller = StorePoller(api, self._changed, events.announce, settings.stores)
        self._census = Census(api, self._cache, settings.watched, self._changed)
        observer = Observer(self._cache, self._census, self._poller, settings)
        applier = Applier(api, self._cache, self._census, self._poller, events, settings)
        reconciler = Reconciler(api, self._cache, self._census, self._poller, observer, applier, self._state, settings)
        self._loop = Loop(reconciler.reconcile, self._metrics.reconciled, reconciler.is_new)
        self._watch = Watch(self._cache, settings, self._changed, self._census.recount_soon)
        self._checks = health_checks(api, self._elector, self._loop, self._census)
        self._state.leads = lambda: self._elector.leads
        self._state.store = self._poller.health
        self._state.depth, self._state.lag = (lambda: self._loop.depth), (lambda: self._loop.lag)

    def stop(self) -> None:
        """Requests the orderly end of this replica."""
        self._stopping.set()

    async def run(self) -> bool:
        """Runs until `stop` (returns True) or the loss of the lease (returns False). Raises the error of a failed
        part."""
        async with serve_http(self._settings.http_port, self._checks, self._ready, self._metrics.registry):
            if not await self._finished_before_stop(self._elector.acquire()):
                return True
            try:
                return await self._lead()
            finally:
                await self._elector.release()

    async def _lead(self) -> bool:
        """Runs all parts until the first one ends; then finishes the running reconcile steps, and closes the
        watches."""
        loop = asyncio.create_task(self._loop.run(), name="loop")
        lease = asyncio.create_task(self._elector.hold(), name="lease")
        stopped = asyncio.create_task(self._stopping.wait(), name="stop")
        work = asyncio.create_task(self._work(), name="work")
        tasks: set[asyncio.Task[Any]] = {loop, lease, stopped, work}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return stopped in done
        finally:
            self._loop.stop()
            if self._elector.leads:
                await asyncio.wait([loop], timeout=LOOP_STOP_SECONDS)
            loop.cancel()  # no write without the lease: another replica may lead already
            # kopf waits for every task that was created after it.
            await self._poller.close()
            self._watch.stop()
            await asyncio.wait([work], timeout=WATCH_STOP_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _work(self) -> None:
        """Fills the cache, then watches, takes censuses and probes nodes. So no step observes an incomplete cache."""
        await self._census.fill()
        for key in list(self._cache.keys()):
            self._loop.add(key)
        log.info("%d jobs", len(self._cache))
        beside = [
            asyncio.create_task(self._census.run(), name="census"),
            asyncio.create_task(self._repair.run(), name="node repair"),
        ]
        try:
            await self._watch.run(self.stop)
        finally:
            for task in beside:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def _changed(self, key: tuple[str, str]) -> None:
        self._loop.add(key)

    def _ready(self) -> str:
        """The readiness check: "" if ready. A replica that waits for the lease is ready, because it can take over."""
        return "" if self._watch.started or not self._elector.leads else "starting"

    async def _finished_before_stop(self, work: Coroutine[Any, Any, None]) -> bool:
        """Runs `work`; returns whether it finished before `stop`."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stopping.wait())
        done, rest = await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for pending in rest:
            pending.cancel()
            await asyncio.wait([pending])
        if task in done:
            task.result()
        return task in done


async def serve(settings: OperatorSettings) -> int:
    """Runs one replica; returns the process's exit code. A replica that has lost its lease exits with 1, so that
    Kubernetes restarts it."""
    api = await Api.connect()
    try:
        operator = Operator(api, settings)
        install_signal_handlers(operator.stop)
        return 0 if await operator.run() else 1
    finally:
        await api.close()


def main() -> int:
    """Entry point of the operator; logs an expected error as one line."""
    start_log()
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        return asyncio.run(serve(OperatorSettings.read()))
    except OpenseerError as error:
        log.error("error: %s", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
