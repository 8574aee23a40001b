"""The name of the machine: that of the visible card, not of the first in a list."""

from pathlib import Path

import pytest

from openseer_worker.gpu_bench.device import device_name, first_visible, processor_name

CARDS = [("0", "GPU-aaaa-1", "NVIDIA A100"), ("1", "GPU-bbbb-2", "NVIDIA H100 80GB HBM3")]


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        (None, "NVIDIA A100"),
        ("0", "NVIDIA A100"),
        ("1", "NVIDIA H100 80GB HBM3"),
        ("1,0", "NVIDIA H100 80GB HBM3"),
        (" 1 ", "NVIDIA H100 80GB HBM3"),
        ("GPU-bbbb", "NVIDIA H100 80GB HBM3"),
        ("", "unknown GPU"),
        ("-1", "unknown GPU"),
        ("7", "unknown GPU"),
        ("MIG-cccc", "unknown GPU"),
    ],
    ids=str,
)
def test_the_first_card_that_is_visible_gives_the_name(visible: str | None, name: str) -> None:
    assert first_visible(CARDS, visible) == name


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_a_failing_driver_names_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 'NVIDIA-SMI has failed, because, it could not'; exit 9", monkeypatch)
    assert device_name(on_cpu=False) == "unknown GPU"


def test_the_driver_is_queried_for_the_visible_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "\\n".join(", ".join(card) for card in CARDS)
    program(tmp_path, f"[ $1 = --query-gpu=index,uuid,name ] && printf '{listed}\\n'", monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert device_name(on_cpu=False) == "NVIDIA H100 80GB HBM3"


def test_a_processor_is_named_as_linux_names_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 9654\nmodel name\t: other\n")
    assert processor_name(tmp_path / "cpuinfo") == "AMD EPYC 9654"
    assert processor_name(tmp_path / "none") == ""
