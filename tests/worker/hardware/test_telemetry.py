"""Telemetry against a library that answers like NVIDIA's, and without one."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.hardware.telemetry import Telemetry, sick


class Library:
    """Two GPUs; the second one knows no ECC. Gives one Xid event."""

    NVML_CLOCK_SM = NVML_MEMORY_ERROR_TYPE_UNCORRECTED = NVML_VOLATILE_ECC = nvmlEventTypeXidCriticalError = 1

    def __init__(self, xid: int = 0) -> None:
        self.events = [SimpleNamespace(device=1, eventData=xid)] if xid else []
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        """Calls whose answer nobody reads."""

        def answer(*_: object) -> None:
            return None

        return answer

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetIndex(self, gpu: int) -> int:
        return gpu

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=10 + gpu, total=100)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=50)

    def nvmlDeviceGetClockInfo(self, gpu: int, clock: int) -> int:
        return 1980

    def nvmlDeviceGetTotalEccErrors(self, gpu: int, kind: int, counter: int) -> int:
        if gpu == 1:
            raise RuntimeError("not supported")
        return 0

    def nvmlEventSetWait_v2(self, events: Any, wait: int) -> Any:
        if not self.events:
            raise RuntimeError("timeout")
        return self.events.pop()

    def nvmlShutdown(self) -> None:
        self.closed = True


def test_each_gpu_tells_what_it_can() -> None:
    library = Library()
    telemetry = Telemetry(library)
    assert telemetry() == {
        "gpu0_memory_used": 10, "gpu0_memory_total": 100, "gpu0_utilisation": 0.5, "gpu0_sm_mhz": 1980,
        "gpu0_ecc_uncorrected": 0,
        "gpu1_memory_used": 11, "gpu1_memory_total": 100, "gpu1_utilisation": 0.5, "gpu1_sm_mhz": 1980,
    }  # fmt: skip
    telemetry.close()
    assert library.closed
    assert telemetry() == {}


def test_an_xid_is_heard_and_makes_the_gpu_sick() -> None:
    telemetry = Telemetry(Library(xid=79))
    deadline = time.monotonic() + 5
    while sick(telemetry()) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sick(telemetry()) == "gpu1: Xid 79"
    telemetry.close()


def test_without_a_gpu_there_are_no_figures_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(library, "nvmlInit", lambda: 1 / 0, raising=False)
    telemetry = Telemetry(library)
    assert telemetry() == {}
    assert "openseer-xid" not in {thread.name for thread in threading.enumerate()}
    telemetry.close()


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({}, None),
        ({"gpu0_xid": 13, "gpu0_ecc_uncorrected": 0, "gpu0_sm_mhz": 200}, None),
        ({"gpu0_ecc_uncorrected": 2}, "gpu0: 2 uncorrected memory errors"),
        ({"gpu3_xid": 48}, "gpu3: Xid 48"),
        ({"steps": 7, "sick": "rank 2: gpu0: Xid 79"}, "rank 2: gpu0: Xid 79"),
        ({"steps": 7, "running": 3}, None),
    ],
)
def test_a_gpu_is_sick_only_by_its_own_errors_or_by_what_an_engine_says(
    metrics: dict[str, float | int | str], reason: str | None
) -> None:
    assert sick(WorkerMetrics(metrics)) == reason
