"""Results of the operator's probe of a node's GPUs."""

from typing import Any

import pytest

from openseer_core.errors import GpuSickError, OpenseerError
from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.hardware.probe import look


def telling(**readings: Any) -> WorkerMetrics:
    return WorkerMetrics(readings)


def test_healthy_gpus_are_counted() -> None:
    assert look(lambda: telling(gpu0_memory_used=1, gpu1_memory_used=1), 0.0) == "2 GPUs are healthy"


def test_a_sick_gpu_ends_the_probe_at_once() -> None:
    with pytest.raises(GpuSickError, match=r"^gpu1: Xid 79$"):
        look(lambda: telling(gpu0_memory_used=1, gpu1_xid=79), 1e9)


def test_a_machine_without_gpus_is_not_reported_as_healthy() -> None:
    with pytest.raises(OpenseerError, match="no GPU could be read") as raised:
        look(WorkerMetrics, 0.0)
    assert raised.value.exit_code == 1
