"""Watches the cluster with kopf: every event that is newer than the cache updates it, and requests a reconcile step of
the job of the event's object.

Only low-level handlers are used: they store nothing in the objects and add no finalizer. An error in a handler loses no
work, because a step depends on the present state and not on events.
"""

# kopf's decorators are only partly typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import asyncio
import logging
import signal
from collections.abc import Callable
from typing import Any

import kopf

from openseer_operator.kube.cache import Cache
from openseer_operator.objects.names import JOB_LABEL
from openseer_operator.objects.reading import JobKey, job_key, read_pod
from openseer_operator.settings import OperatorSettings
from openseer_process.deep_json import read_deep_json_everywhere

PAGE_OBJECTS = 500
"""Objects per page of kopf's LIST."""
WATCH_SECONDS = 240
"""Lifetime of a watch connection, in seconds; its renewal also replaces a watch that the server has lost silently."""
INACTIVITY_SECONDS = 90.0
"""Timeout of a watch without an event or bookmark, in seconds; servers send a bookmark every minute."""
CONNECT_SECONDS = 5.0
CALL_SECONDS = 30.0
BACKOFFS = (0.5, 1, 2, 3, 5, 8, 13, 21)
"""Pauses between kopf's retries of a failed call, in seconds."""
IDLE_SECONDS = 1.0
"""Time without events after which kopf's task for one object ends, in seconds."""

Changed = Callable[[JobKey], None]


class Watch:
    """Runs kopf. `changed`: called with a job's key when its cached data have changed. `relisted`: called when the
    watch may have missed deletions."""

    def __init__(
        self, cache: Cache, settings: OperatorSettings, changed: Changed, relisted: Callable[[], None]
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._changed = changed
        self._relisted = relisted
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()

    @property
    def started(self) -> bool:
        """Whether kopf has started."""
        return self._ready.is_set()

    def stop(self) -> None:
        self._stop.set()

    async def run(self, on_signal: Callable[[], None]) -> None:
        """Watches until `stop`; raises kopf's errors. SIGTERM and SIGINT call `on_signal`, not kopf's handlers."""
        read_deep_json_everywhere()  # in kopf, and in its HTTP client
        namespaces = self._settings.watched
        tasks = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=_kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stop,
            ready_flag=self._ready,
        )
        install_signal_handlers(on_signal)
        await kopf.run_tasks(tasks, ignored=frozenset(asyncio.all_tasks()) - frozenset(tasks))

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        kopf.on.event("openseer.dev", "v1alpha1", "rolloutjobs", registry=registry)(self._on_job)
        kopf.on.event("", "v1", "pods", labels={JOB_LABEL: kopf.PRESENT}, registry=registry)(self._on_pod)
        return registry

    async def _on_job(self, event: Any, **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            self._notify(self._cache.drop_job(job_key(raw), raw["metadata"]["uid"]))
        else:
            self._notify(self._cache.put_job(raw))
        self._report_relist(event)

    async def _on_pod(self, event: Any, **_: Any) -> None:
        raw = event["object"]
        if event["type"] == "DELETED":
            record = read_pod(raw)
            if record is not None:
                self._notify(self._cache.drop_pod(record.key, record.pod.name, record.pod.uid))
        else:
            self._notify(self._cache.put_pod(raw))
        self._report_relist(event)

    def _notify(self, key: JobKey | None) -> None:
        if key is not None:
            self._changed(key)

    def _report_relist(self, event: Any) -> None:
        """Calls `relisted` for an event without a type: such an event is an entry of a LIST, at the start or after an
        interruption of the watch."""
        if event["type"] is None:
            self._relisted()


def install_signal_handlers(stop: Callable[[], None]) -> None:
    """Makes SIGTERM and SIGINT call `stop`."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)


class _NoEssence(kopf.DiffBaseStorage):
    """Turns off kopf's copies of all objects; kopf would use them to compute differences."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.level = logging.WARNING
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoEssence()
    settings.process.ultimate_exiting_timeout = None
    settings.watching.label_selectors["pods"] = JOB_LABEL
    settings.watching.chunk_size = PAGE_OBJECTS
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.inactivity_timeout = INACTIVITY_SECONDS
    settings.watching.connect_timeout = CONNECT_SECONDS
    settings.networking.connect_timeout = CONNECT_SECONDS
    settings.networking.request_timeout = CALL_SECONDS
    settings.networking.error_backoffs = BACKOFFS
    settings.queueing.idle_timeout = IDLE_SECONDS
    return settings


def _login(settings: kopf.OperatorSettings, **_: Any) -> kopf.ConnectionInfo | None:
    """Connects as the pod's ServiceAccount; outside a pod, with the kubeconfig."""
    return kopf.login_with_service_account(settings=settings) or kopf.login_with_kubeconfig(settings=settings)
