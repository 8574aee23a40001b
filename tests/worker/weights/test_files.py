"""Checks of files of weights."""

import struct
from pathlib import Path

import pytest

from openseer_core.errors import LoadError
from openseer_worker.weights.files import INDEX, SINGLE, check_files
from tests.worker.weights.made import safetensors


def test_whole_files_are_accepted_and_measured(folder: Path) -> None:
    assert check_files(folder) == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with pytest.raises(LoadError, match="has no safetensors; name the folder that contains them"):
        check_files(folder.parent)


@pytest.mark.parametrize("size", [0, 5, 30, -1])
def test_a_truncated_file_is_refused(folder: Path, size: int) -> None:
    path = folder / "b.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LoadError, match=r"b\.safetensors .*cut short"):
        check_files(folder)


@pytest.mark.parametrize("header", [b"{]", b"[1]", b'{"w": {}}', b'{"w": {"data_offsets": ["x"]}}'])
def test_a_file_with_a_strange_header_is_refused(folder: Path, header: bytes) -> None:
    (folder / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LoadError, match="its header cannot be read"):
        check_files(folder)


def test_files_named_by_the_index_must_exist(folder: Path) -> None:
    (folder / "b.safetensors").unlink()
    with pytest.raises(LoadError, match=r"lacks b\.safetensors"):
        check_files(folder)


def test_tensors_of_the_jobs_model_must_exist_in_its_shapes(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    safetensors(own / SINGLE)
    check_files(folder, own)
    safetensors(own / SINGLE, 5)
    with pytest.raises(LoadError, match=r"tensor w has shape \[4\], in the job's model \[5\]"):
        check_files(folder, own)
    safetensors(own / SINGLE, name="v")
    with pytest.raises(LoadError, match="lacks tensor v"):
        check_files(folder, own)
    safetensors(own / SINGLE, name="lm_head.weight")
    with pytest.raises(LoadError, match=r"lacks tensor lm_head\.weight"):
        check_files(folder, own)
    (own / "config.json").write_text('{"tie_word_embeddings": true}')
    check_files(folder, own)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"w": "../../etc/x.safetensors"}}'])
def test_a_strange_index_is_refused(folder: Path, index: str) -> None:
    (folder / INDEX).write_text(index)
    with pytest.raises(LoadError, match="index"):
        check_files(folder)
