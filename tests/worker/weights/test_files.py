"""Files of weights: what is refused, what is fetched, and that it goes when it is old."""

import asyncio
import http.server
import json
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import LoadError
from openseer_core.weights.publish import Source
from openseer_worker.weights.files import INDEX, SINGLE, WeightFiles, check_files, digest, fetch


def safetensors(path: Path, count: int = 4, name: str = "w") -> None:
    """A file of one tensor."""
    header = json.dumps({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * count))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Weights in two files."""
    path = tmp_path / "weights"
    path.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        safetensors(path / name)
    (path / INDEX).write_text(json.dumps({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}))
    return path


def test_whole_files_are_accepted_and_measured(folder: Path) -> None:
    assert check_files(folder) == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert check_files(folder.parent) == 0


@pytest.mark.parametrize("size", [0, 5, 30, -1])
def test_a_file_that_is_cut_short_is_refused(folder: Path, size: int) -> None:
    path = folder / "b.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LoadError, match=r"b\.safetensors .*cut short"):
        check_files(folder)


@pytest.mark.parametrize("header", [b"{]", b"[1]", b'{"w": {}}', b'{"w": {"data_offsets": ["x"]}}'])
def test_a_file_with_a_strange_header_is_refused(folder: Path, header: bytes) -> None:
    (folder / "b.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(LoadError, match="its header cannot be read"):
        check_files(folder)


def test_files_that_the_index_names_must_be_there(folder: Path) -> None:
    (folder / "b.safetensors").unlink()
    with pytest.raises(LoadError, match=r"lacks b\.safetensors"):
        check_files(folder)


def test_tensors_that_the_jobs_model_has_must_be_there_in_its_shapes(folder: Path, tmp_path: Path) -> None:
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


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no folder"):
        asyncio.run(WeightFiles().read_ahead(Source(path=str(tmp_path / "nowhere"))))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """The folder over HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_folder_is_fetched_once_and_goes_when_it_is_old(folder: Path, url: str) -> None:
    async def main() -> None:
        files, source = WeightFiles(), Source(url=url)
        await files.read_ahead(source)
        fetched = await files.folder(source)
        assert fetched is not None
        assert digest(fetched) == digest(folder)
        files.keep([source])
        assert fetched == await files.folder(source)
        files.keep([None])
        assert not fetched.exists()
        again = await files.folder(source)
        assert again is not None
        files.close()
        assert not again.parent.exists()

    asyncio.run(main())


def test_without_an_index_the_one_file_is_fetched(folder: Path, url: str, tmp_path: Path) -> None:
    (folder / INDEX).unlink()
    with pytest.raises(LoadError, match="404"):
        fetch(url, tmp_path)
    safetensors(folder / SINGLE)
    fetch(url, tmp_path)
    assert check_files(tmp_path) > 0


def test_a_server_that_is_not_there_and_a_worker_that_ends_are_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:9"):
        fetch("http://127.0.0.1:9", tmp_path)
    with pytest.raises(LoadError, match="the worker ends"):
        fetch(url, tmp_path, lambda: True)


def test_the_jobs_own_model_and_a_transfer_have_no_folder() -> None:
    async def main() -> None:
        files = WeightFiles()
        assert await files.folder(None) is None
        assert await files.folder(Source(transfer={})) is None
        await files.read_ahead(Source(transfer={}))
        files.close()

    asyncio.run(main())
