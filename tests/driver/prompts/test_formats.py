"""A prompt file is read by its content, not its name; the error of another file names its format."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openseer_core.errors import PromptsError
from openseer_driver.prompts import rows
from tests.driver.prompts.sources import read, refused

LINES = b'{"prompt": "one", "id": "a"}\n{"prompt": "two"}\n'


def written(folder: Path, content: bytes, name: str = "prompts.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["prompts.jsonl.gz", "prompts"])
def test_gzip_is_read_as_the_lines_in_it(tmp_path: Path, name: str) -> None:
    plain = read(written(tmp_path, LINES))
    assert read(written(tmp_path, gzip.compress(LINES), name)) == plain
    assert read(written(tmp_path, gzip.compress(LINES[:30]) + gzip.compress(LINES[30:]), name)) == plain
    assert [prompt.id for prompt in plain] == ["a", "line-2"]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    for number in range(2):
        written(tmp_path, b"\xef\xbb\xbf" + LINES.replace(b"a", b"%d" % number), f"t-0000{number}-of-00002.jsonl")
    assert [prompt.id for prompt in read(tmp_path)] == ["0", "line-2", "1", "line-4"]
    assert [prompt.id for prompt in read(written(tmp_path, gzip.compress(b"\xef\xbb\xbf" + LINES)))] == ["a", "line-2"]


def test_truncated_gzip_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b'{"prompt": "%d"}\n' % (number**9) for number in range(5000)))
    message = refused(written(tmp_path, whole[:-2000]))
    assert "prompts.jsonl: the gzip data is damaged or cut off" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (LINES.decode().encode("utf-16"), "found UTF-16 text, allowed: JSON lines"),
        (LINES.decode().encode("utf-16-le"), "found UTF-16 text, allowed: JSON lines"),
        (LINES.decode().encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
        (LINES.decode().encode("utf-32"), "found UTF-32 text"),
        (b"question,answer\nWhat?,42\n", "found CSV with the columns question,answer, allowed: JSON lines"),
        (b"question\tanswer\nWhat?\t42\n", "found CSV"),
        (b'[{"prompt": "a"}, {"prompt": "b"}]', "found a JSON array, allowed: JSON lines"),
        (b'[\n  {"prompt": "a"}\n]', "jq -c '.[]' FILE"),
        (b'{\n  "prompt": "a"\n}\n', "found a JSON document over several lines"),
        (b"What is 1 + 1?\n", "found text that begins with What is 1 + 1?, allowed: JSON lines"),
        (b"<!DOCTYPE html><html>", "found an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run git lfs pull"),
        (b"PK\x03\x04rest", "found a zip archive"),
        (b"\x28\xb5\x2f\xfdrest", "found zstd data"),
        (b"BZh91AY", "found bzip2 data"),
        (b"\xfd7zXZ\0", "found xz data"),
        (b"\x7fELF\0\0", "found binary data (first bytes 7f 45 4c 46)"),
    ],
)
def test_the_error_of_another_file_names_its_format(tmp_path: Path, content: bytes, expected: str) -> None:
    for packed in (content, gzip.compress(content)):
        message = refused(written(tmp_path, packed))
        assert expected in message
        assert "prompts.jsonl: found" in message


def test_a_file_with_one_invalid_line_is_read_as_lines(tmp_path: Path) -> None:
    message = refused(written(tmp_path, b'x, y{"prompt": "a"}\n' + LINES))
    found = "found 'x, y{\"prompt'"
    assert message == f"{tmp_path}/prompts.jsonl line 1: not valid JSON (Expecting value at column 1, {found})"


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LINE_BYTES", 1 << 20)
    bomb = gzip.compress(b'{"prompt": "' + b"a" * (3 << 20))
    assert "found a line of more than 1 MiB" in refused(written(tmp_path, bomb))


@given(
    lines=st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3).map(json.dumps), max_size=4),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"]),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    is_packed=st.booleans(),
    noise=st.binary(max_size=8),
)
def test_any_file_gives_prompts_or_problems(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], encoding: str, ends: str, is_packed: bool, noise: bytes
) -> None:
    content = noise + ends.join(lines).encode(encoding, errors="replace")
    path = written(tmp_path_factory.mktemp("any"), gzip.compress(content) if is_packed else content)
    try:
        found: list[Any] = list(read(path))
    except PromptsError as error:
        found = list(error.problems)
        assert len(found) <= 21
    assert found
