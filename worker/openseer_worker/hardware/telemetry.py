"""Readings of the GPUs through NVIDIA's management library, and when a GPU counts as sick. Empty without GPUs."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from openseer_core.worker.metrics import WorkerMetrics

_LOG = logging.getLogger(__name__)
# Xid errors after which NVIDIA asks to reset or replace the GPU; the others come from programs, or pass.
_SICK_XIDS = frozenset({48, 62, 64, 74, 79, 92, 94, 95, 119, 120, 140, 143, 154})
_XID_WAIT_MS = 1000


class Telemetry:
    """Reads the GPUs of this machine. Without library, driver or GPU every reading is empty; nothing ever raises."""

    def __init__(self, library: Any = None) -> None:
        self._library: Any = library or _load()
        self._gpus: list[Any] = []
        self._xids: dict[int, int] = {}
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None
        if self._library is not None:
            try:
                self._open()
            except Exception as error:  # noqa: BLE001 - no driver, no GPU, no right: a worker runs without metrics
                _LOG.debug("no GPU telemetry: %s", error)
                self._gpus = []

    def __call__(self) -> WorkerMetrics:
        """Per GPU `gpu<i>_…`: memory_used and memory_total (bytes), utilisation (0 to 1), sm_mhz, ecc_uncorrected
        (since the driver was loaded), xid (the last one seen); each only where the GPU reports it."""
        values = WorkerMetrics()
        for index, gpu in enumerate(self._gpus):
            for name, read in self._readings(gpu).items():
                with suppress(Exception):
                    values[f"gpu{index}_{name}"] = read()
            if index in self._xids:
                values[f"gpu{index}_xid"] = self._xids[index]
        return values

    def close(self) -> None:
        """Ends the thread that listens for Xid events and closes the library."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join(2 * _XID_WAIT_MS / 1000)
        if self._library is not None:
            with suppress(Exception):
                self._library.nvmlShutdown()
        self._gpus = []

    def _open(self) -> None:
        library = self._library
        library.nvmlInit()
        self._gpus = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]
        if self._gpus:
            self._watcher = threading.Thread(target=self._watch, name="openseer-xid", daemon=True)
            self._watcher.start()

    def _readings(self, gpu: Any) -> dict[str, Callable[[], float | int]]:
        library = self._library
        return {
            "memory_used": lambda: int(library.nvmlDeviceGetMemoryInfo(gpu).used),
            "memory_total": lambda: int(library.nvmlDeviceGetMemoryInfo(gpu).total),
            "utilisation": lambda: library.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            "sm_mhz": lambda: int(library.nvmlDeviceGetClockInfo(gpu, library.NVML_CLOCK_SM)),
            "ecc_uncorrected": lambda: int(
                library.nvmlDeviceGetTotalEccErrors(
                    gpu, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
                )
            ),
        }

    def _watch(self) -> None:
        """Xid errors can only be listened for; a GPU or driver that offers no events is left alone."""
        library = self._library
        try:
            events = library.nvmlEventSetCreate()
            for gpu in self._gpus:
                library.nvmlDeviceRegisterEvents(gpu, library.nvmlEventTypeXidCriticalError, events)
        except Exception as error:  # noqa: BLE001 - some GPUs and virtual ones offer no events
            _LOG.debug("no Xid events: %s", error)
            return
        while not self._closing.is_set():
            try:
                event = library.nvmlEventSetWait_v2(events, _XID_WAIT_MS)
                self._xids[library.nvmlDeviceGetIndex(event.device)] = int(event.eventData)
            except Exception:  # noqa: BLE001 - the library's own errors, a time-out among them
                # Mostly: nothing happened in that time. A broken library would answer at once, without the wait.
                self._closing.wait(_XID_WAIT_MS / 1000)
        with suppress(Exception):
            library.nvmlEventSetFree(events)


def sick(metrics: WorkerMetrics) -> str | None:
    """Why the worker of these metrics should not go on: what an engine reports as `sick`, or what the readings of a
    GPU mean. None when all is well."""
    for name, value in metrics.items():
        if name == "sick":
            return str(value)
        gpu, _, reading = name.partition("_")
        if reading == "ecc_uncorrected" and int(value) > 0:
            return f"{gpu}: {value} uncorrected memory errors"
        if reading == "xid" and int(value) in _SICK_XIDS:
            return f"{gpu}: Xid {value}"
    return None


def _load() -> Any:
    try:
        return import_module("pynvml")
    except ImportError:
        return None
