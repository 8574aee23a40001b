"""Telemetry through NVIDIA's own Python module and a played library, in a process like a worker's."""

import threading
from typing import Any

import pytest

from openseer_worker.hardware.telemetry import Telemetry
from tests.worker.hardware.played import GIB, PlayedGpus, Reader, part_of, uuid_of

HEALTHY = {"memory_used": 10 * GIB, "memory_total": 80 * GIB, "utilisation": 0.5, "sm_mhz": 1980, "ecc_uncorrected": 0,
           "throttled": 0}  # fmt: skip


def of(*readings: dict[str, Any]) -> dict[str, Any]:
    """The metrics of GPUs with these readings."""
    return {f"gpu{index}_{name}": value for index, gpu in enumerate(readings) for name, value in gpu.items()}


def seen(gpus: PlayedGpus, reader: Reader, index: int = 0, **values: object) -> tuple[dict[str, Any], str | None]:
    """The worker's report after it has read GPU `index` with these values."""
    used = int(str(gpus.lines[f"gpu{index}.memory_used"])) + 1
    gpus.set(**values, **{f"gpu{index}__memory_used": used})
    return reader.until(lambda metrics, _: used in metrics.values())


def test_a_gpu_reports_supported_readings_and_none_after_the_end(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpus=2, gpu1__ecc=None, fail__nvmlDeviceGetClockInfo=3)
    reader.open()
    healthy = {name: value for name, value in HEALTHY.items() if name != "sm_mhz"}
    assert reader.first() == of(healthy, {name: value for name, value in healthy.items() if name != "ecc_uncorrected"})
    reader.close()
    assert reader.read() == ({}, None)


@pytest.mark.parametrize(
    ("visible", "most", "used"),
    [
        (None, None, [0, 1, 2, 3]),
        (None, 2, [0, 1]),
        ("2,0", None, [2, 0]),
        (" 3 ", None, [3]),
        ("1,2,3", 2, [1, 2]),
        (uuid_of(2), None, [2]),
        ("GPU-3333,GPU-0", None, [3, 0]),
        ("1,-1,2", None, [1]),
        ("1,7,2", None, [1]),
        ("1,1", None, [1]),
        ("03", None, [3]),
        ("1,\u0663", None, [1]),
        ("9" * 5000, None, []),
        ("GPU-", None, []),
        ("", None, []),
        ("-1", None, []),
        ("NoDevFiles", None, []),
    ],
)
def test_a_worker_reads_its_visible_gpus_in_its_own_order(
    gpus: PlayedGpus, reader: Reader, visible: str | None, most: int | None, used: list[int]
) -> None:
    gpus.set(**{f"gpu{gpu}__memory_used": 1000 + gpu for gpu in range(4)})
    gpus.reset_calls()
    reader.open(visible, most)
    if used:
        metrics = reader.first()
    else:
        reader.close()
        metrics, _ = reader.read()
    assert metrics == of(*({**HEALTHY, "memory_used": 1000 + gpu} for gpu in used))
    assert {line.split()[1] for line in gpus.calls.read_text().splitlines() if "MemoryInfo" in line} == {
        f"gpu{gpu}." for gpu in used
    }


def test_errors_of_another_workers_gpu_make_no_worker_sick(gpus: PlayedGpus, reader: Reader) -> None:
    reader.open("2,3")
    reader.first()
    gpus.xid(0, 79)
    gpus.xid(3, 13)
    reader.until(lambda metrics, _: "gpu1_xid" in metrics)
    metrics, sick = seen(gpus, reader, 2, gpu0__ecc=9, gpu1__lost=15)
    assert sick is None
    assert {name for name in metrics if "xid" in name} == {"gpu1_xid"}


def test_an_xid_is_reported_under_the_workers_gpu_number(gpus: PlayedGpus, reader: Reader) -> None:
    reader.open("2,3")
    reader.first()
    gpus.xid(3, 79)
    assert reader.sickness() == "gpu1: Xid 79"


def test_an_xid_before_the_workers_start_is_ignored(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.xid(0, 79)
    reader.open()
    reader.first()
    gpus.xid(0, 31)
    metrics, sick = reader.until(lambda metrics, _: "gpu0_xid" in metrics)
    assert (metrics["gpu0_xid"], sick) == (31, None)


def test_later_xids_of_the_clean_up_do_not_hide_a_sick_xid(gpus: PlayedGpus, reader: Reader) -> None:
    reader.open()
    reader.first()
    gpus.xid(0, 48)
    gpus.xid(0, 45)
    gpus.xid(1, 43)
    metrics, sick = reader.until(lambda metrics, _: "gpu1_xid" in metrics)
    assert (metrics["gpu0_xid"], sick) == (48, "gpu0: Xid 48")


def test_only_memory_errors_during_its_run_make_a_worker_sick(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpu0__ecc=3)
    reader.open()
    assert reader.first()["gpu0_ecc_uncorrected"] == 3
    metrics, sick = seen(gpus, reader)
    assert (metrics["gpu0_ecc_uncorrected"], sick) == (3, None)
    gpus.set(gpu0__ecc=5)
    assert reader.sickness() == "gpu0: 2 new uncorrected memory errors"
    reader.close()
    reader.open()
    assert "gpu0_fault" not in reader.first()


def test_a_memory_error_after_the_counter_was_cleared_is_noticed(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpu0__ecc=3)
    reader.open()
    reader.first()
    assert seen(gpus, reader, gpu0__ecc=0)[1] is None
    gpus.set(gpu0__ecc=1)
    assert reader.sickness() == "gpu0: 1 new uncorrected memory errors"


def test_a_failed_row_remapping_is_sickness(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpu1__remap_failed=1)
    reader.open()
    assert reader.sickness() == "gpu1: a row of its memory could not be replaced"


@pytest.mark.parametrize(
    ("before", "later", "sick"),
    [
        (0, 0, None),
        (0, 1, "gpu0: the driver asks for a reset of the GPU"),
        (2, 2, "gpu0: the driver asks for a reboot of the machine"),
        (4, 4, None),
        (4, 0, None),
        (0, 4, "gpu0: the driver asks for a drain and a reset of the GPU"),
        (0, 99, "gpu0: the driver asks for action 99"),
    ],
)
def test_the_drivers_recommended_action_is_followed(
    gpus: PlayedGpus, reader: Reader, before: int, later: int, sick: str | None
) -> None:
    gpus.set(gpu0__action=before)
    reader.open()
    reader.first()
    assert seen(gpus, reader, gpu0__action=later)[1] == sick


@pytest.mark.parametrize("code", [15, 16])
def test_a_gpu_lost_during_reads_is_sick(gpus: PlayedGpus, reader: Reader, code: int) -> None:
    reader.open("1,2")
    reader.first()
    gpus.set(gpu2__lost=code)
    assert reader.sickness() == "gpu1: the driver has lost it, or asks for its reset"
    metrics, _ = reader.until(lambda metrics, _: "gpu1_memory_used" not in metrics)
    assert metrics["gpu0_memory_used"] == 10 * GIB


def test_an_xid_of_a_gpu_without_readable_number_counts(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(fail__nvmlDeviceGetIndex=15)
    reader.open("2")
    reader.first()
    gpus.xid(2, 79)
    assert reader.sickness() == "gpu0: Xid 79"


def test_a_gpu_lost_before_hides_no_other(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpu1__lost=15)
    reader.open("2")
    assert reader.first() == of(HEALTHY)
    reader.close()
    reader.open("1")
    assert reader.sickness() == "gpu0: the driver has lost it, or asks for its reset"


@pytest.mark.parametrize("name", ["1", uuid_of(1), f"0,{uuid_of(1)}"])
def test_a_gpu_lost_before_is_noticed_under_any_name(gpus: PlayedGpus, reader: Reader, name: str) -> None:
    gpus.set(gpu1__lost=15)
    reader.open(name)
    place = name.count(",")
    assert reader.sickness() == f"gpu{place}: the driver has lost it, or asks for its reset"


@pytest.mark.parametrize("name", ["0", uuid_of(0)])
def test_an_unreadable_neighbour_does_not_stop_readings(gpus: PlayedGpus, reader: Reader, name: str) -> None:
    gpus.set(gpu1__lost=999)
    reader.open(name)
    assert reader.first() == of(HEALTHY)
    gpus.xid(0, 79)
    assert reader.sickness() == "gpu0: Xid 79"


@pytest.mark.parametrize("name", ["1", uuid_of(1)])
def test_a_gpu_unreadable_at_first_is_read_later(gpus: PlayedGpus, reader: Reader, name: str) -> None:
    gpus.reset_calls()
    gpus.set(gpu1__lost=999)
    reader.open(name)
    while gpus.count_calls("nvmlInitWithFlags") < 2:
        assert reader.read() == ({}, None)
    gpus.set(gpu1__lost=None)
    assert reader.first() == of(HEALTHY)


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
def test_a_driver_that_fails_once_at_the_start_is_tried_again(gpus: PlayedGpus, reader: Reader, call: str) -> None:
    gpus.reset_calls()
    gpus.set(**{f"fail__{call}": 999})
    reader.open("1")
    while not gpus.count_calls(call):
        assert reader.read() == ({}, None)
    gpus.set(**{f"fail__{call}": None})
    assert reader.first() == of(HEALTHY)


def test_a_container_without_permission_is_not_sick(gpus: PlayedGpus, reader: Reader) -> None:
    reader.open("0")
    reader.first()
    unknown = {f"fail__nvmlDeviceGet{name}": 999 for name in ("MemoryInfo", "UtilizationRates", "TotalEccErrors")}
    gpus.set(**unknown)
    metrics, sick = reader.until(lambda metrics, _: "gpu0_memory_used" not in metrics)
    assert sick is None
    assert metrics["gpu0_sm_mhz"] == 1980


@pytest.mark.parametrize(
    ("reasons", "throttled"), [(0x1, 0), (0x4, 0), (0x8, 1), (0x20, 1), (0x40, 1), (0x80 | 0x4, 1)]
)
def test_heat_and_power_supply_are_throttling_but_a_power_limit_is_not(
    gpus: PlayedGpus, reader: Reader, reasons: int, throttled: int
) -> None:
    gpus.set(gpu0__throttle=reasons)
    reader.open("0")
    assert reader.first()["gpu0_throttled"] == throttled


def test_a_part_of_a_gpu_has_its_own_memory_and_xids(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.split(0, 2)
    gpus.set(gpu0__mig1__memory_used=5 * GIB)
    reader.open(part_of(0, 1))
    part = {"memory_used": 5 * GIB, "memory_total": 20 * GIB, "sm_mhz": 1980, "throttled": 0}
    assert reader.first() == of(part)
    gpus.xid(0, 79, 7, 0)
    gpus.xid(0, 48, 8, 1)
    gpus.xid(0, 31, 8, 0)
    metrics, sick = reader.until(lambda metrics, _: "gpu0_xid" in metrics)
    assert (metrics["gpu0_xid"], sick) == (31, None)
    gpus.xid(0, 95)
    assert reader.sickness() == "gpu0: Xid 95"


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, ["gpu0.mig0.", "gpu0.mig1.", "gpu1.", "gpu2.", "gpu3."]),
        ("0,1", ["gpu0.mig0.", "gpu1."]),
        ("MIG-01", ["gpu0.mig1."]),
        (f"MIG-{uuid_of(0)}/8/0", ["gpu0.mig1."]),
        (uuid_of(0), []),
    ],
)
def test_parts_are_numbered_as_by_cuda(gpus: PlayedGpus, reader: Reader, visible: str | None, used: list[str]) -> None:
    gpus.split(0, 2)
    gpus.reset_calls()
    reader.open(visible)
    if used:
        reader.first()
    reader.close()
    asked = dict.fromkeys(line.split()[1] for line in gpus.calls.read_text().splitlines() if "MemoryInfo" in line)
    assert list(asked) == used


def test_a_hanging_driver_does_not_delay_the_worker(gpus: PlayedGpus, reader: Reader) -> None:
    reader.open("0")
    before = reader.first()
    gpus.reset_calls()
    gpus.set(hang__nvmlDeviceGetUtilizationRates=1, gpu0__memory_used=11 * GIB)
    while not gpus.count_calls("nvmlDeviceGetUtilizationRates"):
        assert reader.read() == (before, None)
    assert reader.read() == (before, None)
    gpus.set(hang__nvmlDeviceGetUtilizationRates=None)
    reader.until(lambda metrics, _: metrics["gpu0_memory_used"] == 11 * GIB)


def test_a_broken_wait_for_events_is_limited_to_the_read_interval(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(fail__nvmlEventSetWait_v2=999)
    gpus.reset_calls()
    reader.open("0")
    reader.first()
    for _ in range(3):
        seen(gpus, reader)
    reader.close()
    assert 3 <= gpus.count_calls("nvmlEventSetWait_v2") <= gpus.count_calls("nvmlDeviceGetUtilizationRates")


def test_gpus_without_events_are_read(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(gpus=1, fail__nvmlDeviceRegisterEvents=3)
    reader.open()
    reader.first()
    assert seen(gpus, reader, gpu0__sm_mhz=300)[0]["gpu0_sm_mhz"] == 300


def test_an_old_driver_gives_its_supported_readings(old_gpus: PlayedGpus, old_reader: Reader) -> None:
    old_gpus.set(gpu1__throttle=0x40)
    old_reader.open()
    assert old_reader.first() == of(HEALTHY, {**HEALTHY, "throttled": 1})
    old_gpus.set(gpu1__ecc=1)
    assert old_reader.sickness() == "gpu1: 1 new uncorrected memory errors"


def test_without_a_driver_there_are_no_readings(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.set(fail__nvmlInitWithFlags=9)
    reader.open()
    reader.close()
    assert reader.read() == ({}, None)


def test_an_engine_without_gpus_reads_none() -> None:
    telemetry = Telemetry(most=0)
    assert telemetry() == {}
    assert "openseer-gpus" not in {thread.name for thread in threading.enumerate()}
    telemetry.close()
