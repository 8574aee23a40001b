"""Readings that make a worker stop."""

import pytest

from openseer_core.worker.metrics import WorkerMetrics
from openseer_worker.hardware.sickness import SICK_XIDS, sick

OF_PROGRAMS = {13, 31, 43, 45, 68, 69, 109}
HARMLESS = {63, 92, 154}


def test_program_errors_and_notices_do_not_make_a_gpu_sick() -> None:
    assert SICK_XIDS.isdisjoint(OF_PROGRAMS | HARMLESS)


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({}, None),
        ({"gpu0_xid": 13, "gpu0_ecc_uncorrected": 7, "gpu0_sm_mhz": 200, "gpu0_throttled": 1}, None),
        ({"gpu0_sm_mhz": 200, "gpu1_fault": "the driver has lost it"}, "gpu1: the driver has lost it"),
        ({"gpu3_xid": 48}, "gpu3: Xid 48"),
        ({"steps": 7, "sick": "rank 2: gpu0: Xid 79"}, "rank 2: gpu0: Xid 79"),
        ({"steps": 7, "running": 3}, None),
    ],
)
def test_a_gpu_is_sick_only_by_its_own_errors_or_an_engines_report(
    metrics: dict[str, float | int | str], reason: str | None
) -> None:
    assert sick(WorkerMetrics(metrics)) == reason
