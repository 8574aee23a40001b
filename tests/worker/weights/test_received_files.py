"""Received tensors are written to files that any loader of weights can read."""

# pyright: reportUnknownVariableType=false

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from openseer_core.errors import LoadError
from openseer_worker.weights.files import check_files
from openseer_worker.weights.received_files import Announced, ReceivedFiles, tensors_of

ONE, TWO = Announced("one", "float32", (2, 3)), Announced("two", "int64", ())


def data(*values: float) -> memoryview:
    return memoryview(np.array(values, dtype=np.float32).tobytes())


def test_each_update_is_a_file_and_the_index_names_all(tmp_path: Path) -> None:
    files = ReceivedFiles(tmp_path / "v1")
    files.expect([ONE])
    files.add("one", data(1, 2, 3, 4, 5, 6))
    files.end_update()
    files.expect([TWO])
    files.add("two", memoryview((7).to_bytes(8, "little")))
    assert not (tmp_path / "v1").exists()
    folder = files.finish()
    assert folder == tmp_path / "v1"
    check_files(folder)
    assert load_file(folder / "model-00001.safetensors")["one"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert load_file(folder / "model-00002.safetensors")["two"].tolist() == 7
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 32
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_unannounced_or_missing_tensors_are_refused(tmp_path: Path) -> None:
    files = ReceivedFiles(tmp_path / "v1")
    with pytest.raises(LoadError, match="no tensor has arrived"):
        files.finish()
    files.expect([ONE, TWO])
    with pytest.raises(LoadError, match="tensor two arrived out of order"):
        files.add("two", data(1))
    with pytest.raises(LoadError, match="tensor one: found 4 bytes, announced: 24"):
        files.add("one", data(1))
    with pytest.raises(LoadError, match="tensor two was announced and has not arrived"):
        files.finish()
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_received_twice_is_refused(tmp_path: Path) -> None:
    files = ReceivedFiles(tmp_path / "v1")
    with pytest.raises(LoadError, match="tensor one was announced twice"):
        files.expect([ONE, ONE])
    files.expect([ONE])
    files.add("one", data(1, 2, 3, 4, 5, 6))
    files.end_update()
    with pytest.raises(LoadError, match="tensor one was announced twice"):
        files.expect([TWO, ONE])
    files.close()


def test_tensors_too_large_for_the_disk_are_refused_in_advance(tmp_path: Path) -> None:
    files = ReceivedFiles(tmp_path / "v1")
    size = shutil.disk_usage(tmp_path).total
    with pytest.raises(LoadError, match=f"bytes free, the tensors need {size * 8:,}"):
        files.expect([Announced("large", "float64", (size,))])
    files.close()


@pytest.mark.parametrize(
    ("names", "dtypes", "shapes", "message"),
    [
        (["a"], [], [[1]], "found 1 names, 0 dtype_names and 1 shapes"),
        ([1], ["float32"], [[1]], "names: found '1', needed: a tensor's name"),
        (["__metadata__"], ["float32"], [[1]], "needed: a tensor's name"),
        (["a"], ["complex64"], [[1]], "dtype_names: found 'complex64', allowed: float64"),
        (["a"], ["float32"], [[-1]], r"shapes: found \[-1\] of a, needed: lengths"),
        (["a"], ["float32"], [[True]], r"shapes: found \[True\] of a"),
        (["a"], ["float32"], ["3"], "needed: lengths"),
    ],
)
def test_impossible_announcements_are_refused(
    names: list[object], dtypes: list[object], shapes: list[object], message: str
) -> None:
    with pytest.raises(LoadError, match=message):
        tensors_of(names, dtypes, shapes)
