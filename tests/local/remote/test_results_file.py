"""The file that `openseer results` writes: whole lines, each entry once, never a foreign file."""

from pathlib import Path
from typing import Literal

import pytest

from openseer_core.errors import InputError, OutputError
from openseer_core.wire.results import GroupItem, ResultItem
from openseer_local.remote.results_file import ResultsFile


def entry(cursor: int) -> GroupItem:
    return GroupItem(
        cursor=cursor,
        batch=3,
        group=f"g{cursor}",
        size=1,
        ok=1,
        aborted=0,
        infra_failed=0,
        carried_over=0,
        whole=True,
        finished_at=1.0,
    )


def result(cursor: int, status: Literal["ok", "infra_failed"], reason: str | None = None) -> ResultItem:
    return ResultItem(
        cursor=cursor,
        batch=3,
        group=f"g{cursor}",
        index=0,
        turn=0,
        status=status,
        finish_reason="stop",
        stop_reason=reason,
        weights_version="initial",
        versions=[],
        prompt_token_ids=[1],
        token_ids=[2],
        sampled=[(0, 1)],
        chunks=[],
        enqueued_at=0.0,
        finished_at=1.0,
    )


def test_reading_continues_after_the_last_entry(tmp_path: Path) -> None:
    path = tmp_path / "new/results.jsonl"
    with ResultsFile(path, 3) as file:
        assert file.cursor == 0
        file.write([entry(1), entry(2)])
        file.sync()
    with ResultsFile(path, 3) as file:
        assert (file.cursor, file.results) == (2, 0)
        file.write([entry(3)])
    assert len(path.read_text().splitlines()) == 3


def test_failed_results_are_counted_over_all_commands_that_wrote_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, 3) as file:
        file.write([result(1, "ok"), result(2, "infra_failed", "no room for 40 tokens"), entry(3)])
    with ResultsFile(path, 3) as file:
        file.write([result(4, "infra_failed", "no room for 50 tokens")])
        assert file.results == 3
        assert file.failures.counted().text == "2 of 3 failed: no room for … tokens (g2, g4)"


def test_a_truncated_line_is_dropped_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, 3) as file:
        file.write([entry(1), entry(2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with ResultsFile(path, 3) as file:
        assert file.cursor == 1
        file.write([entry(2)])
    assert path.read_bytes() == whole


def test_a_file_of_another_batch_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, 3) as file:
        file.write([entry(1)])
    before = path.read_bytes()
    with pytest.raises(InputError, match="holds results of batch 3"):
        ResultsFile(path, 4)
    assert path.read_bytes() == before


def test_only_one_command_at_a_time_writes(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with ResultsFile(path, 3), pytest.raises(OutputError, match="another command is writing to this file"):
        ResultsFile(path, 3)


def test_only_a_regular_file_is_written(tmp_path: Path) -> None:
    for special in (Path("/dev/null"), Path("/dev/full"), tmp_path):
        with pytest.raises(InputError, match="not a regular file"):
            ResultsFile(special, 3)
