"""The rows of a result: each position has the row of the lease that counts, and missing positions are reported."""

from dataclasses import replace
from pathlib import Path

import pytest

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.messages import APPEND, Chunk, Result
from openseer_core.queue.states import FinishReason, Status
from openseer_core.routed_rows import RowShape, Stretch
from openseer_core.tokens import pack_tokens
from openseer_store.routed.assembly import RoutedExperts, assemble
from openseer_store.routed.folders import STALE_SECONDS, remove_all, remove_batch, remove_groups, row_batches
from openseer_store.routed.places import context_file, group_folder, lease_file, prompt_file
from openseer_store.routed.records import pack_record

SHAPE = RowShape(1, 2, 1)
GROUP = GroupId(3, "q/1")
PROMPT = pack_tokens([5, 6, 7, 8])


def rows(first: int, count: int) -> bytes:
    """Rows that contain their positions."""
    return bytes(number for place in range(first, first + count) for number in (place, 0))


def chunk(start: int, end: int, fence: int, event: str = "give_back") -> Chunk:
    return Chunk("" if event == APPEND else "w#1", fence, start, end, 0.0, 1.0, event, "v1")


def result(tokens: int, *chunks: Chunk, group: GroupId = GROUP, version: str = "v1") -> Result:
    request, ids = RequestId(group, 2), pack_tokens(range(tokens))
    said = (Status.OK, FinishReason.LENGTH, "", PROMPT, ids, b"", "{}", "{}", 0.0, 1.0, chunks)
    return Result(1, request, version, *said)


def put(folder: Path, name: str, *stretches: tuple[int, bytes], group: GroupId = GROUP) -> Path:
    place = group_folder(folder, group)
    place.mkdir(parents=True, exist_ok=True)
    with (place / name).open("ab") as file:
        for start, data in stretches:
            file.write(pack_record(name, SHAPE, Stretch(start, data)))
    return place / name


def lease(start: int, fence: int, group: GroupId = GROUP) -> str:
    return lease_file(RequestId(group, 2), start, fence, "w#1")


def positions(found: RoutedExperts) -> list[int]:
    return list(found.rows[::2])


def put_prompt(folder: Path) -> None:
    put(folder, prompt_file("v1", PROMPT), (0, rows(0, 3)))


def test_rows_of_the_prompt_and_of_all_leases_are_joined(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 2)), (5, rows(5, 1)))
    put(tmp_path, lease(3, 2), (6, rows(6, 2)))
    found = assemble(tmp_path, result(5, chunk(0, 3, 1), chunk(3, 5, 2)))
    assert (found.count, found.array_shape, found.gaps, found.missing) == (8, (8, 1, 2), 0, ())
    assert positions(found) == list(range(8))


def test_rows_that_a_lease_computed_past_its_tokens_do_not_count(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 1)), (4, rows(104, 8)))
    put(tmp_path, lease(2, 2), (5, rows(5, 1)))
    found = assemble(tmp_path, result(4, chunk(0, 2, 1), chunk(2, 4, 2)))
    assert positions(found) == [0, 1, 2, 3, 104, 5, 0]
    assert found.missing == ((6, 7),)


def test_the_row_between_two_leases_is_that_of_the_later_one(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 3)))
    put(tmp_path, lease(2, 2), (5, rows(205, 1)))
    assert positions(assemble(tmp_path, result(3, chunk(0, 2, 1), chunk(2, 3, 2)))) == [0, 1, 2, 3, 4, 205]


def test_prompt_rows_are_of_the_weights_of_the_first_token(tmp_path: Path) -> None:
    put(tmp_path, prompt_file("v1", PROMPT), (0, rows(100, 3)))
    put(tmp_path, prompt_file("v2", PROMPT), (0, rows(0, 3)))
    put(tmp_path, lease(0, 2), (3, rows(3, 2)))
    idle, sampled = chunk(0, 0, 1, "reap"), replace(chunk(0, 2, 2), version="v2")
    assert positions(assemble(tmp_path, result(2, idle, sampled, version="v2"))) == [0, 1, 2, 3, 4]


def test_prompt_rows_of_other_weights_fill_no_gap(tmp_path: Path) -> None:
    put(tmp_path, prompt_file("v2", PROMPT), (0, rows(0, 3)))
    put(tmp_path, lease(0, 1), (3, rows(3, 2)))
    put(tmp_path, lease(2, 2), (5, rows(5, 1)))
    later = replace(chunk(2, 3, 2), version="v2")
    assert assemble(tmp_path, result(3, chunk(0, 2, 1), later, version="v2")).missing == ((0, 3),)


def test_cached_appended_rows_are_of_the_weights_that_continue(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 3)))
    context = PROMPT + pack_tokens(range(4))
    put(tmp_path, context_file("v1", context), (5, rows(105, 2)))
    put(tmp_path, context_file("v2", context), (5, rows(5, 2)))
    put(tmp_path, lease(4, 2), (7, rows(7, 1)))
    later = replace(chunk(4, 5, 2), version="v2")
    found = assemble(tmp_path, result(5, chunk(0, 2, 1), chunk(2, 4, 1, APPEND), later, version="v2"))
    assert (positions(found), found.gaps) == ([0, 1, 2, 3, 4, 5, 6, 7], 0)


def test_appended_tokens_have_the_rows_of_the_leases_that_read_them(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 2)))
    put(tmp_path, lease(4, 2), (5, rows(5, 2)))
    put(tmp_path, lease(4, 3), (7, rows(7, 2)))
    chunks = (chunk(0, 2, 1), chunk(2, 4, 1, APPEND), chunk(4, 4, 2), chunk(4, 6, 3))
    found = assemble(tmp_path, result(6, *chunks))
    assert (positions(found), found.gaps) == (list(range(9)), 0)


def test_a_carried_group_has_the_rows_under_its_first_name(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 2)))
    carried = GROUP.carried(7)
    put(tmp_path, lease(2, 1, carried), (5, rows(5, 1)), group=carried)
    found = assemble(tmp_path, result(3, chunk(0, 2, 1), chunk(2, 3, 1), group=carried, version="v2"))
    assert (positions(found), found.gaps) == (list(range(6)), 0)


def test_missing_files_are_a_gap_and_no_error(tmp_path: Path) -> None:
    found = assemble(tmp_path, result(2, chunk(0, 2, 1)))
    assert (found.count, found.rows, found.shape, found.gaps, found.missing) == (5, b"", None, 5, ((0, 5),))
    assert found.array_shape == (5, 0, 0)


def test_a_damaged_file_and_rows_of_another_shape_are_gaps(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    torn = put(tmp_path, lease(0, 1), (3, rows(3, 1)), (4, rows(4, 1)))
    torn.write_bytes(torn.read_bytes()[:-1])
    name = lease(2, 2)
    other = pack_record(name, RowShape(2, 2, 1), Stretch(5, bytes(8)))
    (torn.parent / name).write_bytes(other)
    found = assemble(tmp_path, result(4, chunk(0, 2, 1), chunk(2, 4, 2)))
    assert (positions(found)[:4], found.missing) == ([0, 1, 2, 3], ((4, 7),))


def test_rows_of_a_prompt_are_those_of_its_weights_and_tokens() -> None:
    names = {prompt_file(version, prompt) for version in ("v1", "v2") for prompt in (PROMPT, PROMPT[:8])}
    assert len(names) == 4


def test_a_group_and_a_batch_and_a_job_are_removed_whole(tmp_path: Path) -> None:
    job = tmp_path / "job"
    other = GroupId(3, "other")
    put_prompt(job)
    put(job, "x", (0, rows(0, 1)), group=other)
    put(job, "x", (0, rows(0, 1)), group=GroupId(4, "q"))
    remove_groups(job, [GROUP, GroupId(9, "never")])
    assert not group_folder(job, GROUP).exists()
    assert sorted(row_batches(job)) == [3, 4]
    remove_groups(job, [other])
    assert row_batches(job) == [4]
    remove_batch(job, 4, only_stale=True)
    assert row_batches(job) == [4]
    remove_batch(job, 4, only_stale=False)
    assert row_batches(job) == []
    remove_all(job)
    remove_all(job)
    assert row_batches(job) == []


def test_rows_of_a_batch_stay_until_they_are_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_prompt(tmp_path)
    monkeypatch.setattr("openseer_store.routed.folders.STALE_SECONDS", -1.0)
    assert STALE_SECONDS == 24 * 3600
    remove_batch(tmp_path, 3, only_stale=True)
    assert not group_folder(tmp_path, GROUP).exists()
