"""A file of groups is checked completely, line by line, before the first call."""

import gzip
import json
from pathlib import Path

import pytest

from openseer_core.errors import PromptsError
from openseer_local.remote.upload import GroupsFile
from tests.driver.prompts.sources import saved, table


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r'{"prompt": "\ud83d"}', r"prompt: not valid text (half of a character, \ud83d)"),
        (
            r'{"prompt": "a", "metadata": ["\ude00"]}',
            r"metadata[0]: not valid text (half of a character, \ude00)",
        ),
        ('{"prompt": "a", "metadata": {"score": NaN}}', "metadata.score: found NaN, allowed: a number"),
        (
            '{"prompt": "a", "metadata": {"score": 1e999}}',
            "metadata.score: found 1e999, allowed: a number that a",
        ),
        ('{"prompt": "a", "sampling": {"seed": 1, "seed": 2}}', "sampling.seed: found twice, allowed: once"),
        ("[" * 100_000, "not usable JSON (nested too deeply"),
    ],
)
def test_a_line_without_a_json_form_is_refused_with_its_number(tmp_path: Path, line: str, expected: str) -> None:
    groups = tmp_path / "groups.jsonl"
    groups.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(PromptsError) as caught:
        GroupsFile(groups, None)
    [problem] = caught.value.problems
    assert problem.startswith(f"{groups} line 2: {expected}")


def test_escaped_surrogate_pairs_are_accepted(tmp_path: Path) -> None:
    groups = tmp_path / "groups.jsonl"
    groups.write_text('{"prompt": "\\ud83d\\ude00", "metadata": {"n": 1e300}}\n')
    found = GroupsFile(groups, None)
    assert (found.count, [group.prompt for group in found]) == (1, ["\N{GRINNING FACE}"])


MESSAGES = [{"role": "user", "content": "1 + 1?"}]
GROUPS = [
    {"id": "a", "prompt": "one", "messages": None, "n": 3, "metadata": {"answer": "1"}, "lengths": [1, 2, 3]},
    {"id": None, "prompt": None, "messages": MESSAGES, "n": None, "metadata": None, "lengths": None},
]


def test_groups_are_read_from_every_format_of_prompts(tmp_path: Path) -> None:
    lines = "".join(json.dumps(group) + "\n" for group in GROUPS).encode()
    (tmp_path / "plain.jsonl").write_bytes(b"\xef\xbb\xbf" + lines)
    (tmp_path / "packed").write_bytes(gzip.compress(lines))
    table(GROUPS, tmp_path / "train.parquet")
    saved(GROUPS, tmp_path / "saved")
    for name in ("plain.jsonl", "packed", "train.parquet", "saved", "train"):
        found = GroupsFile(tmp_path / name, 2)
        first, second = found
        assert found.count == 2
        assert (first.id, first.prompt, first.n, first.metadata) == ("a", "one", 3, {"answer": "1"})
        assert (second.id, second.messages, second.n, second.metadata) == ("line-2", MESSAGES, 2, {})


def test_empty_parts_of_messages_in_a_table_are_omitted(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a", "tool_calls": None}, {"role": "tool", "content": "b"}]
    table([{"messages": messages}], tmp_path / "t.parquet")
    [group] = GroupsFile(tmp_path / "t.parquet", None)
    assert group.messages == [{"role": "user", "content": "a"}, messages[1]]
    table([{"messages": [{"role": "user", "content": None}]}], tmp_path / "t.parquet")
    assert "row 1: messages.0.content: found null, allowed: text" in refused(tmp_path / "t.parquet")


def refused(path: Path) -> str:
    with pytest.raises(PromptsError) as caught:
        GroupsFile(path, None)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"prompt": "a"}'.encode("utf-16"), "found UTF-16 text, allowed: JSON lines"),
        (b'[{"prompt": "a"}]', "found a JSON array, allowed: JSON lines"),
        (b"prompt,answer\na,b\n", "found CSV with the columns prompt,answer"),
        (gzip.compress(b'{"prompt": "a"}\n' * 99, mtime=0)[:-9], "the gzip data is damaged or cut off"),
        (b"PAR1", "the parquet data cannot be read"),
        (b"\n", "empty, needed: at least one group"),
        (b'{"question": "a"}', "line 1: question: unknown field, known: id, prompt_token_ids, prompt, messages, n"),
        (b'{"id": "a", "prompt": "a"}\n' * 2, 'line 2: id "a" is already that of line 1'),
    ],
)
def test_the_error_of_a_file_without_groups_names_its_content(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "groups").write_bytes(content)
    assert expected in refused(tmp_path / "groups")


def test_a_file_changed_after_its_check_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl"
    path.write_text('{"prompt": "a"}\n')
    groups = GroupsFile(path, None)
    with path.open("a") as file:
        file.write('{"prompt": "b"}\n')
    with pytest.raises(PromptsError, match="changed while it was read"):
        list(groups)
