"""A source that changes during a read, or between a run and its resume, is never read in part."""

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from openseer_core.admission import ModelLimits
from openseer_core.errors import PromptsError
from openseer_core.queue.group import GroupSpec
from openseer_driver.prompts.source import open_source
from openseer_driver.submission import CheckedPrompts, check_prompts, read_groups
from openseer_text.rendering import open_codec
from tests.driver.prompts.sources import job_of

ROWS = [{"prompt_token_ids": [number + 1] * 50} for number in range(2000)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CHANGED = "changed while it was read; start again when no process writes to it"


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"prompt_token_ids": [1]}\n')


def grow_by_half_a_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"prompt_tok')


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(len(LINES) // 2)


def replace(path: Path) -> None:
    draft = path.with_name("draft")
    draft.write_bytes(LINES.replace(b"[1, ", b"[2, "))
    draft.replace(path)


def checked(path: Path) -> CheckedPrompts:
    job = job_of(path)
    return check_prompts(job, open_source(job), lambda _: None)


def groups(path: Path, prompts: CheckedPrompts) -> Iterator[GroupSpec]:
    job = job_of(path)
    return read_groups(job, prompts, open_codec(job.spec.model), ModelLimits(), 0.0)


@pytest.mark.parametrize("change", [grow, grow_by_half_a_line, truncate, replace])
@pytest.mark.parametrize("read_before", [0, 10])
def test_a_source_changed_after_its_check_is_an_error(
    tmp_path: Path, change: Callable[[Path], None], read_before: int
) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(LINES)
    found = groups(path, checked(path))
    assert len(list(islice(found, read_before))) == read_before
    change(path)
    with pytest.raises(PromptsError) as caught:
        list(found)
    assert caught.value.problems == (f"{path}: {CHANGED}",)


def test_a_source_deleted_during_reading_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(LINES)
    found = groups(path, checked(path))
    assert next(found)
    path.unlink()
    with pytest.raises(PromptsError, match=r"prompts.jsonl cannot be read: No such file or directory"):
        list(found)


@pytest.mark.parametrize("name", ["prompts.jsonl.gz", "prompts.parquet"])
def test_a_source_written_during_its_check_is_reported_as_changing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_bytes(gzip.compress(LINES))
    whole = path.read_bytes()
    job, source = job_of(path), open_source(job_of(path))

    def cut(_: str) -> None:
        path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(PromptsError) as caught:
        list(read_groups(job, check_prompts(job, source, cut), open_codec(job.spec.model), ModelLimits(), 0.0))
    assert caught.value.problems == (f"{path}: {CHANGED}",)


def test_an_unchanged_source_is_reported_with_its_own_errors(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(LINES + b'{"prompt')
    with pytest.raises(PromptsError, match="line 2001: not valid JSON"):
        checked(path)
