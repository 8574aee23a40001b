"""Parquet and Arrow files are read row by row, with the columns that the manifest names."""

import datetime
import decimal
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from openseer_core.manifest.prompts import PromptLine
from openseer_driver.prompts import tables
from openseer_driver.prompts.source import PromptSource
from tests.driver.prompts.sources import read, refused, table

ROWS = [{"question": f"{number} + 1", "answer": str(number + 1), "level": number} for number in range(700)]
FIELDS = {"prompt": "question", "metadata": ["answer"]}
PROMPTS = [
    PromptLine(f"line-{number + 1}", number + 1, f"{number} + 1", metadata={"answer": str(number + 1)})
    for number in range(700)
]


def test_a_parquet_file_is_read_with_its_columns_mapped(tmp_path: Path) -> None:
    assert read(table(ROWS, tmp_path / "train.parquet"), FIELDS) == PROMPTS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            datetime.datetime(2026, 11, 27, tzinfo=datetime.UTC),
            "column made: found timestamp[us, tz=UTC], allowed: types that",
        ),
        (decimal.Decimal("1.50"), "column made: found decimal128(3, 2), allowed: types that JSON has"),
        (b"\x89PNG", "column made: found binary, allowed: types that JSON has"),
        ({"at": [datetime.date(2026, 11, 27)]}, "column made.at[]: found date32[day], allowed: types that JSON has"),
    ],
)
def test_a_column_of_a_type_without_json_form_is_named(tmp_path: Path, value: object, expected: str) -> None:
    path = table([{"question": "a", "made": value, "more": {"made": value, "level": 1}}], tmp_path / "t.parquet")
    message = refused(path, {"prompt": "question", "metadata": ["made"]})
    assert message.startswith(f"{path}: {expected}")
    assert message.endswith("convert it in the file, or leave it out (spec.prompts.fields)")
    assert refused(path, {"prompt": "question", "metadata": ["more.made"]}).startswith(f"{path}: column more.made")
    [prompt] = read(path, {"prompt": "question", "metadata": ["more.level"]})
    assert prompt.metadata == {"more.level": 1}


def test_a_number_without_json_form_is_named_with_row_and_position(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "metadata": {"score": [score]}} for score in (0.5, float("nan"), float("-inf"))]
    path = table(rows, tmp_path / "t.parquet")
    assert refused(path).splitlines() == [
        f"{path} row 2: metadata.score[0]: found NaN, allowed: a number",
        f"{path} row 3: metadata.score[0]: found -Infinity, allowed: a number",
    ]


def test_a_duplicate_column_is_refused(tmp_path: Path) -> None:
    columns = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    parquet.write_table(columns, tmp_path / "t.parquet")
    assert "column prompt: found 2 times, allowed: once" in refused(tmp_path / "t.parquet")


def test_a_column_of_maps_gives_maps(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.int64())
    parquet.write_table(pa.table({"prompt": ["a"], "level": pa.array([[("x", 1)]], kind)}), tmp_path / "t.parquet")
    [prompt] = read(tmp_path / "t.parquet", {"prompt": "prompt", "metadata": ["level"]})
    assert prompt.metadata == {"level": {"x": 1}}
    parquet.write_table(pa.table({"prompt": ["a"], "level": pa.array([[("x", 1)] * 2], kind)}), tmp_path / "t.parquet")
    assert "duplicate key was 'x'" in refused(tmp_path / "t.parquet", {"prompt": "prompt", "metadata": ["level"]})


def test_a_row_without_a_prompt_and_a_table_without_rows_are_refused(tmp_path: Path) -> None:
    path = table([{"question": "a"}, {"question": None}], tmp_path / "t.parquet")
    assert refused(path, {"prompt": "question"}).startswith(f"{path} row 2: found null, allowed: exactly one of prompt")
    parquet.write_table(pa.table({"question": pa.array([], pa.string())}), path)
    assert refused(path, {"prompt": "question"}) == f"{path}: empty, needed: at least one prompt"


def test_only_few_large_rows_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_BYTES", 1 << 16)
    ids, count = list(range(1000, 5000)), 200
    path = table([{"prompt_token_ids": ids, "unused": "x" * 1000}] * count, tmp_path / "t.parquet")
    source = PromptSource("t", path, columns=["prompt_token_ids"])
    tracemalloc.start()
    try:
        rows = sum(1 for _ in source.rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert rows == count
    assert peak < count * len(ids) * 8


def test_a_column_missing_in_all_rows_is_reported_once(tmp_path: Path) -> None:
    path = table(ROWS, tmp_path / "t.parquet")
    for fields in ({"prompt": "questoin"}, None):
        assert len(refused(path, fields).splitlines()) == 1


def test_the_error_of_duplicate_ids_names_rows_and_a_remedy(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "index": 0}, {"prompt": "b", "index": 0}]
    for name in ("t.parquet", "s/train-00000-of-00002.parquet", "s/train-00001-of-00002.parquet"):
        table(rows[:1] if name[0] == "s" else rows, tmp_path / name)
    fields = {"prompt": "prompt", "id": "index"}
    advice = "; give each row its own id, or leave spec.prompts.fields.id out: then rows are numbered"
    assert refused(tmp_path / "t.parquet", fields).endswith(f'row 2: id "0" is already that of row 1{advice}')
    assert refused(tmp_path / "s", fields).endswith(f"row 1 (counted over all files){advice}")


def test_the_error_of_a_missing_column_lists_the_existing_ones(tmp_path: Path) -> None:
    message = refused(table(ROWS[:1], tmp_path / "t.parquet"), {"prompt": "questoin"})
    assert message.endswith("questoin: missing, which spec.prompts.fields.prompt names; found question, answer, level")


def test_without_a_mapping_columns_have_the_names_of_prompt_fields(tmp_path: Path) -> None:
    [prompt] = read(table([{"prompt": "a", "id": "x"}], tmp_path / "t.parquet"))
    assert (prompt.id, prompt.prompt) == ("x", "a")
    assert "spec.prompts.fields" in refused(table(ROWS[:1], tmp_path / "t.parquet"))


@pytest.mark.parametrize("cut", [10, -40])
def test_damaged_parquet_is_an_error(tmp_path: Path, cut: int) -> None:
    path = table(ROWS, tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    assert "the parquet data cannot be read" in refused(path, FIELDS)


def arrow_stream(path: Path, batches: int) -> Path:
    schema = pa.schema({"prompt": pa.string()})
    with ipc.new_stream(str(path), schema) as writer:
        for number in range(batches):
            writer.write_batch(pa.record_batch([pa.array([f"{number}"])], schema=schema))
    return path


def test_an_arrow_stream_truncated_between_batches_is_an_error(tmp_path: Path) -> None:
    path = arrow_stream(tmp_path / "t.arrow", 3)
    assert [prompt.prompt for prompt in read(path)] == ["0", "1", "2"]
    whole = path.read_bytes()
    for size in (len(whole) - 8, len(whole) - 1, 8):
        path.write_bytes(whole[:size])
        assert "the arrow stream is cut off: the mark of its end is missing" in refused(path)


def test_an_arrow_file_is_read_and_a_part_of_one_refused(tmp_path: Path) -> None:
    path, batch = tmp_path / "t.arrow", pa.record_batch([pa.array(["a", "b"])], names=["prompt"])
    with ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    assert [prompt.prompt for prompt in read(path)] == ["a", "b"]
    path.write_bytes(path.read_bytes()[:-10])
    assert "the arrow file data cannot be read" in refused(path)
