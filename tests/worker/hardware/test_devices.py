"""Assignment of cores and GPUs to local workers."""

import sys
from pathlib import Path

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.parse import parse_job
from openseer_worker.hardware.devices import ask_gpus, core_of, gpus_of, pin_to_gpus
from openseer_worker.settings import WorkerSettings
from tests.worker.hardware.played import PlayedGpus, Reader, part_of, uuid_of

PINNED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_workers_get_a_core_each_and_take_turns_when_there_are_too_few() -> None:
    assert [core_of(index, [2, 5]) for index in range(3)] == [2, 5, 2]


@pytest.mark.parametrize(("leader", "gpus"), [("", 8), ("host", 4)])
def test_a_rank_of_a_gang_takes_its_share_of_the_gpus(leader: str, gpus: int) -> None:
    parallelism = {"tensor": 4, "pipeline": 2, "nodes": 2}
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "gpus"},
        "spec": {
            "model": {"path": "none"},
            "prompts": {"path": "none"},
            "groupSize": 4,
            "sampling": {"maxTokens": 16},
            "workers": {"parallelism": parallelism},
        },
    }
    assert WorkerSettings(parse_job(document, "test"), "", 0, leader=leader).gpus == gpus


def test_workers_get_gpus_of_their_own() -> None:
    assert [gpus_of(index, 2, ["0", "1", "2", "3"], {}) for index in range(2)] == ["0,1", "2,3"]


@pytest.mark.parametrize(
    ("visible", "second"),
    [("3, 1", "1"), ("GPU-aa,GPU-bb", "GPU-bb"), ("MIG-1,MIG-2", "MIG-2"), ("2,0,-1,1", "0")],
)
def test_only_visible_gpus_are_assigned(visible: str, second: str) -> None:
    assert gpus_of(1, 1, ["0", "1", "2", "3"], {"CUDA_VISIBLE_DEVICES": visible}) == second


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_a_machine_with_hidden_gpus_assigns_none(visible: str) -> None:
    with pytest.raises(InputError, match=r"worker 0 needs 2 GPUs of its own, and 0 are visible"):
        gpus_of(0, 2, ["0", "1"], {"CUDA_VISIBLE_DEVICES": visible})


def test_more_workers_than_gpus_is_refused_with_the_field() -> None:
    with pytest.raises(
        InputError, match=r"spec\.workers\.replicas: worker 1 needs 1 GPU of its own, and 1 are visible"
    ):
        gpus_of(1, 1, ["0"], {})


def test_parts_of_gpus_cannot_form_one_worker() -> None:
    with pytest.raises(InputError, match=r"spec\.workers\.parallelism: worker 0 needs 2 GPUs, and MIG-1, MIG-2 are"):
        gpus_of(0, 2, ["MIG-1", "MIG-2"], {})


@pytest.mark.parametrize("visible", ["0,0", "00,0", "2, 2", "GPU-aa,1,GPU-aa"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_gpu_named_twice_is_refused(visible: str, count: int) -> None:
    with pytest.raises(InputError, match=r"CUDA_VISIBLE_DEVICES: names the GPU \S+ twice; name each once"):
        gpus_of(0, count, ["0", "1", "2", "3"], {"CUDA_VISIBLE_DEVICES": visible})


@pytest.fixture
def device_files(tmp_path: Path) -> Path:
    """A folder with the device files of two GPUs."""
    for name in ("nvidia3", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    return tmp_path


def test_without_a_library_device_files_are_counted_not_named(
    device_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as on a machine without the library
    environment: dict[str, str] = {}
    pin_to_gpus(1, 1, environment, devices=device_files)
    assert environment == {"CUDA_VISIBLE_DEVICES": "1"} | PINNED
    environment = {}
    pin_to_gpus(0, 1, environment, devices=device_files / "none")
    assert environment == {}


def test_a_hanging_driver_delays_no_local_worker(
    gpus: PlayedGpus, device_files: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in gpus.environment.items():
        monkeypatch.setenv(name, value)
    gpus.set(hang__nvmlInitWithFlags=1)
    environment: dict[str, str] = {}
    pin_to_gpus(0, 2, environment, devices=device_files, ask_seconds=0.5)
    assert environment == {"CUDA_VISIBLE_DEVICES": "0,1"} | PINNED
    assert "the NVIDIA driver has not answered for 0.5 s" in caplog.text
    gpus.set(hang__nvmlInitWithFlags=None)
    assert [gpu.uuid for gpu in ask_gpus() or ()] == [uuid_of(gpu) for gpu in range(4)]


@pytest.mark.parametrize(
    ("visible", "told"),
    [
        ("9,10", "CUDA_VISIBLE_DEVICES: this machine has no GPU 9; choose among 0 (GPU-00"),
        ("0,GPU-9", "CUDA_VISIBLE_DEVICES: this machine has no GPU GPU-9; choose"),
        ("GPU-0000,1", "CUDA_VISIBLE_DEVICES: GPU-0000 fits 2 GPUs; choose"),
        (f"1,{uuid_of(1)}", f"CUDA_VISIBLE_DEVICES: 1 and {uuid_of(1)} are one GPU; name each once"),
        ("GPU-2,GPU-22", "CUDA_VISIBLE_DEVICES: GPU-2 and GPU-22 are one GPU"),
    ],
)
def test_unknown_and_ambiguous_gpu_names_are_refused(gpus: PlayedGpus, reader: Reader, visible: str, told: str) -> None:
    gpus.set(gpu3__uuid="GPU-00001234")
    assert told in reader.pin(0, 1, CUDA_VISIBLE_DEVICES=visible)


def test_gpu_numbers_of_another_order_are_not_compared_with_uuids(gpus: PlayedGpus, reader: Reader) -> None:
    chosen = {"CUDA_VISIBLE_DEVICES": f"1,{uuid_of(1)}", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert reader.pin(1, 1, **chosen) == chosen | {"CUDA_VISIBLE_DEVICES": uuid_of(1)}


@pytest.mark.parametrize("code", [15, 999])
def test_a_uuid_of_an_unreadable_gpu_is_accepted(gpus: PlayedGpus, reader: Reader, code: int) -> None:
    gpus.set(gpu1__lost=code)
    assert reader.pin(0, 1, CUDA_VISIBLE_DEVICES=uuid_of(1)) == {"CUDA_VISIBLE_DEVICES": uuid_of(1)} | PINNED


def test_local_workers_are_pinned_to_the_drivers_gpus(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.reset(11)
    assert reader.pin(10, 1) == {"CUDA_VISIBLE_DEVICES": "10"} | PINNED
    assert reader.pin(0, 2) == {"CUDA_VISIBLE_DEVICES": "0,1"} | PINNED
    assert reader.pin(4, 2) == {"CUDA_VISIBLE_DEVICES": "8,9"} | PINNED
    refused = reader.pin(5, 2)
    assert isinstance(refused, str)
    assert "worker 5 needs 2 GPUs of its own, and 11 are visible on this machine" in refused


def test_the_users_device_order_is_kept(gpus: PlayedGpus, reader: Reader) -> None:
    fastest = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert reader.pin(1, 1, CUDA_VISIBLE_DEVICES="3,2") == {"CUDA_VISIBLE_DEVICES": "2"} | PINNED
    assert reader.pin(1, 1, CUDA_VISIBLE_DEVICES="3,2", **fastest) == {"CUDA_VISIBLE_DEVICES": "2"} | fastest
    assert reader.pin(1, 1, **fastest) == {"CUDA_VISIBLE_DEVICES": "1"} | PINNED


def test_parts_of_gpus_are_pinned_by_name(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.split(0, 2)
    found = [reader.pin(index, 1) for index in range(3)]
    names = [part_of(0, 0), part_of(0, 1), "1"]
    assert found == [{"CUDA_VISIBLE_DEVICES": name} | PINNED for name in names]


def test_a_machine_without_gpus_pins_nothing(gpus: PlayedGpus, reader: Reader) -> None:
    gpus.reset(0)
    assert reader.pin(0, 1) == {}


def test_a_worker_is_affected_only_by_its_own_gpus(gpus: PlayedGpus, reader: Reader) -> None:
    pinned = [reader.pin(index, 2, CUDA_VISIBLE_DEVICES=f"0,{uuid_of(1)},2,3") for index in range(2)]
    visible = [environment["CUDA_VISIBLE_DEVICES"] for environment in pinned if isinstance(environment, dict)]
    assert visible == [f"0,{uuid_of(1)}", "2,3"]
    with Reader(gpus) as second:
        reader.open(visible[0], most=2)
        second.open(visible[1], most=2)
        for metrics in (reader.first(), second.first()):
            assert {name.partition("_")[0] for name in metrics} == {"gpu0", "gpu1"}
        gpus.xid(2, 79)
        assert second.sickness() == "gpu0: Xid 79"
        gpus.xid(1, 13)
        metrics, sick = reader.until(lambda metrics, _: "gpu1_xid" in metrics)
        assert (metrics["gpu1_xid"], sick) == (13, None)
