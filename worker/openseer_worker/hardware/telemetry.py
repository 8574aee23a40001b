"""Reads a worker's GPUs through NVIDIA's management library; empty without GPUs. Not yet tested on hardware."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.hardware.devices import visible_names
from openseer_worker.hardware.nvml import LIBRARY_NOT_FOUND, Gpu, find_gpus, is_lost, load_nvml
from openseer_worker.hardware.sickness import Sickness

_LOG = logging.getLogger(__name__)
READ_SECONDS = 1.0
"""Interval of readings, in seconds."""
STALE_SECONDS = 10.0
"""Limit of the age of reported readings, in seconds: with a hanging driver the last ones would be reported for ever."""
RETRY_SECONDS = 30.0
"""Interval of attempts to open the GPUs, in seconds, while none of the worker's GPUs can be opened."""
JOIN_SECONDS = 2.0
"""Timeout for the end of the thread, in seconds; a driver may hang."""
_SLOWED = 0x08 | 0x20 | 0x40 | 0x80
"""Bits of the reasons for a low clock that indicate heat or a bad power supply: hardware slowdown, thermal slowdown by
software, by hardware, power brake. Not a power limit, which is normal under load."""


class Telemetry:
    """Reads the GPUs that this process computes on, in a separate thread: a driver's answer may take seconds, or never
    arrive.

    Without library, driver or GPU every reading is empty; no method raises. Create it after the engine is built:
    building forks processes, which must not happen during a call of the library.
    """

    def __init__(
        self,
        library: Any = None,
        *,
        environment: Mapping[str, str] | None = None,
        most: int | None = None,
        read_seconds: float = READ_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Starts the thread. `environment`: its CUDA_VISIBLE_DEVICES names the visible GPUs; None: os.environ. `most`:
        number of visible GPUs, from the first on, that the engine uses; None: all. `read_seconds`: interval of
        readings. `retry_seconds`: interval of attempts to open the GPUs."""
        self._library: Any = library or load_nvml()
        self._environment = dict(os.environ if environment is None else environment)
        self._most = most
        self._read_seconds = read_seconds
        self._retry_seconds = retry_seconds
        self._gpus: list[tuple[Gpu, Sickness]] = []
        self._readings: dict[int, dict[str, float | int]] = {}
        self._read_at = 0.0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        if self._library is not None and most != 0:
            self._thread = threading.Thread(target=self._run, name="openseer-gpus", daemon=True)
            self._thread.start()

    def __call__(self) -> WorkerMetrics:
        """Returns the last readings, without waiting; `i` numbers this worker's GPUs from 0, as CUDA does.

        Per GPU `gpu<i>_…`: memory_used and memory_total (bytes), utilisation (0 to 1), sm_mhz, ecc_uncorrected (errors
        since the driver was loaded), throttled (1 while heat or the power supply slows the GPU, else 0), xid (see
        Sickness), fault (the reason not to use the GPU; absent while it is well). Readings that a GPU does not offer
        are absent.
        """
        values = WorkerMetrics()
        fresh = time.monotonic() - self._read_at < STALE_SECONDS
        for index, (_, sickness) in enumerate(list(self._gpus)):
            if fresh:
                values |= {f"gpu{index}_{name}": value for name, value in self._readings.get(index, {}).items()}
            if sickness.xid is not None:
                values[f"gpu{index}_xid"] = sickness.xid
            if sickness.fault:
                values[f"gpu{index}_fault"] = sickness.fault
        return values

    def close(self) -> None:
        """Ends the thread and closes the library, within JOIN_SECONDS."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(JOIN_SECONDS)
        self._gpus = []

    # ---- in the thread

    def _run(self) -> None:
        library = self._library
        while (found := self._open()) is None:
            if self._closing.wait(self._retry_seconds):
                return
        gpus = [(gpu, _sickness_of(gpu)) for gpu in found]
        events = self._listen(found) if found else None
        for index, (gpu, sickness) in enumerate(gpus):
            self._readings[index] = self._read(gpu, sickness)
        self._read_at = time.monotonic()
        if not self._closing.is_set():
            self._gpus = gpus
        while gpus and not self._closing.is_set():
            self._hear(events, self._read_seconds)
            for index, (gpu, sickness) in enumerate(gpus):
                self._readings[index] = self._read(gpu, sickness)
            self._read_at = time.monotonic()
        with suppress(Exception):
            if events is not None:
                library.nvmlEventSetFree(events)
        with suppress(Exception):
            library.nvmlShutdown()

    def _open(self) -> list[Gpu] | None:
        """Initialises the library and returns this worker's GPUs; empty if it has none. None if a later attempt may
        find them: the driver does not answer yet, or none of the GPUs can be opened and none is lost."""
        library = self._library
        try:
            library.nvmlInit()
        except Exception as error:  # noqa: BLE001 - no driver, no permission: a worker runs without metrics
            _LOG.debug("no GPU telemetry: %s", error)
            return [] if getattr(error, "value", None) == LIBRARY_NOT_FOUND else None
        try:
            found = find_gpus(library, visible_names(self._environment), self._most)
            if not found or any(gpu.whole is not None or gpu.lost for gpu in found):
                return found
            _LOG.debug("none of this worker's GPUs can be opened")
        except Exception as error:  # noqa: BLE001 - as above
            _LOG.debug("no GPU telemetry: %s", error)
        with suppress(Exception):
            library.nvmlShutdown()
        return None

    def _read(self, gpu: Gpu, sickness: Sickness) -> dict[str, float | int]:
        """Returns all readings of the GPU; notes its faults in `sickness`."""
        library, values = self._library, dict[str, float | int]()
        if gpu.whole is None:
            return values

        def ask(question: Callable[[], Any]) -> Any:
            try:
                return question()
            except Exception as error:  # noqa: BLE001 - not supported, no such function, no permission, or lost
                if is_lost(error):
                    sickness.note_lost()
                return None

        memory = ask(lambda: library.nvmlDeviceGetMemoryInfo(gpu.handle))
        answers: dict[str, Any] = {
            "memory_used": memory and int(memory.used),
            "memory_total": memory and int(memory.total),
            "utilisation": ask(lambda: library.nvmlDeviceGetUtilizationRates(gpu.handle).gpu / 100),
            "sm_mhz": ask(lambda: int(library.nvmlDeviceGetClockInfo(gpu.whole, library.NVML_CLOCK_SM))),
            "ecc_uncorrected": ask(lambda: self._memory_errors(gpu)),
            "throttled": ask(lambda: self._slowed(gpu)),
        }
        if answers["ecc_uncorrected"] is not None:
            sickness.note_memory_errors(answers["ecc_uncorrected"])
        if ask(lambda: library.nvmlDeviceGetRemappedRows(gpu.whole)[3]):
            sickness.note_unreplaced_row()
        action = ask(lambda: self._recommended_action(gpu))
        if action is not None:
            sickness.note_action(action)
        return values | {name: answer for name, answer in answers.items() if answer is not None}

    def _memory_errors(self, gpu: Gpu) -> int:
        library = self._library
        return int(
            library.nvmlDeviceGetTotalEccErrors(
                gpu.handle, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
            )
        )

    def _slowed(self, gpu: Gpu) -> int:
        try:
            reasons = self._library.nvmlDeviceGetCurrentClocksEventReasons(gpu.whole)
        except Exception as error:
            if is_lost(error):
                raise
            reasons = self._library.nvmlDeviceGetCurrentClocksThrottleReasons(gpu.whole)  # the name before R535
        return int(reasons & _SLOWED != 0)

    def _recommended_action(self, gpu: Gpu) -> int | None:
        field = self._library.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION  # drivers from R565 on
        answer = self._library.nvmlDeviceGetFieldValues(gpu.whole, [field])[0]
        return int(answer.value.uiVal) if answer.nvmlReturn == 0 else None

    def _listen(self, gpus: list[Gpu]) -> Any:
        """Registers for Xid errors, which NVML reports only as events; returns the event set. None if the library has
        no events."""
        library = self._library
        try:
            events = library.nvmlEventSetCreate()
        except Exception as error:  # noqa: BLE001 - a library without events
            _LOG.debug("no Xid events: %s", error)
            return None
        for index in sorted({gpu.index for gpu in gpus if gpu.whole is not None}):
            whole = next(gpu.whole for gpu in gpus if gpu.index == index)
            try:
                library.nvmlDeviceRegisterEvents(whole, library.nvmlEventTypeXidCriticalError, events)
            except Exception as error:  # noqa: BLE001 - some GPUs, such as virtual ones, offer no events
                _LOG.debug("no Xid events of GPU %d: %s", index, error)
        return events

    def _hear(self, events: Any, seconds: float) -> None:
        """Listens for Xid events for `seconds`. If the library fails earlier, waits for the rest of the time."""
        until = time.monotonic() + seconds
        while events is not None and not self._closing.is_set() and (left := until - time.monotonic()) > 0:
            try:
                event = self._library.nvmlEventSetWait_v2(events, max(1, int(left * 1000)))
            except Exception:  # noqa: BLE001 - mostly the time-out
                break
            for gpu, sickness in self._gpus:
                if self._concerns(event, gpu):
                    sickness.note_xid(int(event.eventData))
        self._closing.wait(max(0.0, until - time.monotonic()))

    def _concerns(self, event: Any, gpu: Gpu) -> bool:
        """Whether the event belongs to this GPU or part, and not to a part of another process."""
        try:
            if self._library.nvmlDeviceGetIndex(event.device) != gpu.index:
                return False
        except Exception as error:  # noqa: BLE001 - the index of a GPU that has just been lost may be unreadable
            # Only this worker's GPUs were registered, so an event of any of them concerns this worker.
            _LOG.debug("an Xid event of an unknown GPU: %s", error)
        if gpu.instance is None:
            return True
        nobody = 0xFFFFFFFF  # an error of the whole GPU
        named = (event.gpuInstanceId, event.computeInstanceId)
        return all(number in (nobody, own) for number, own in zip(named, gpu.instance, strict=True))


def _sickness_of(gpu: Gpu) -> Sickness:
    sickness = Sickness()
    if gpu.lost:
        sickness.note_lost()
    return sickness
