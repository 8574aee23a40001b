"""Rows are requested with a secret of the job's store, and no other file of the volume can be requested."""

from pathlib import Path

import pytest

from openseer_core.ids import GroupId
from openseer_store.routed.asking import MOST_FILES, RowsSecret, pack_answer, unpack_answer
from openseer_store.routed.folders import read_files
from openseer_store.routed.places import group_folder

SECRET = RowsSecret("redis://:word@r:6379/0")
GROUP = GroupId(3, "q/1")
NAMES = ["0.12.7.0123456789abcdef01234567", "prompt.0123456789abcdef01234567"]


def test_a_question_names_a_groups_files_and_contains_no_password() -> None:
    asked = SECRET.ask(GROUP, NAMES)
    question = SECRET.read(asked)
    assert question is not None
    assert (question.place, list(question.names)) == (group_folder(Path(), GROUP), NAMES)
    assert "word" not in asked


@pytest.mark.parametrize(
    "asked",
    [
        RowsSecret("redis://:other@r:6379/0").ask(GROUP, NAMES),
        SECRET.ask(GROUP, ["../../x"]),
        SECRET.ask(GROUP, ["..."]),
        SECRET.ask(GROUP, NAMES * MOST_FILES),
        SECRET.ask(GROUP, []),
        SECRET.ask(GROUP, NAMES).replace("/3/", "/../"),
        SECRET.ask(GROUP, NAMES).replace("/rows/", "/weights/"),
        "/",
    ],
)
def test_questions_with_another_secret_or_other_paths_are_refused(asked: str) -> None:
    assert SECRET.read(asked) is None


def test_an_answer_contains_the_files_and_a_torn_one_is_refused() -> None:
    contents = [b"abc", b"", b"defgh"]
    answer = pack_answer(contents)
    assert unpack_answer(answer, 3) == contents
    for torn in (answer[:-1], answer + b"x", answer[:5], b""):
        with pytest.raises(ValueError, match="an answer"):
            unpack_answer(torn, 3)


def test_files_beyond_the_size_limit_are_read_as_empty(tmp_path: Path) -> None:
    for name, size in (("a", 4), ("b", 7), ("c", 6)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert [len(data) for data in read_files(tmp_path, ["a", "b", "gone", "c"], 10)] == [4, 0, 0, 6]
    assert [len(data) for data in read_files(tmp_path, ["a", "b", "gone", "c"])] == [4, 7, 0, 6]
