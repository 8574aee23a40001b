"""A folder is read as the dataset that it holds, in a stable order; the error of any other folder names its content."""

import json
import os
from pathlib import Path

import datasets
import pytest

from openseer_core.manifest.prompts import PromptLine
from openseer_driver.prompts.source import PromptSource
from tests.driver.prompts.sources import read, refused, saved, table

ROWS = [{"question": f"{number} + 1", "answer": str(number + 1), "level": number} for number in range(700)]
FIELDS = {"prompt": "question", "metadata": ["answer"]}
PROMPTS = [
    PromptLine(f"line-{number + 1}", number + 1, f"{number} + 1", metadata={"answer": str(number + 1)})
    for number in range(700)
]


def hub(folder: Path, ending: str = "") -> Path:
    """Writes a dataset of two splits in the hub's layout."""
    table(ROWS[:300], folder / "data" / f"train-00000-of-00002{ending}.parquet")
    table(ROWS[300:], folder / "data" / f"train-00001-of-00002{ending}.parquet")
    table(ROWS[:2], folder / "data" / f"test-00000-of-00001{ending}.parquet")
    (folder / "README.md").write_text("a card")
    return folder


def test_a_saved_dataset_is_read_from_all_its_shards_in_order(tmp_path: Path) -> None:
    assert read(saved(ROWS, tmp_path / "data"), FIELDS) == PROMPTS


def test_a_saved_dataset_has_the_order_of_its_state_file(tmp_path: Path) -> None:
    state = saved(ROWS, tmp_path / "data") / "state.json"
    document = json.loads(state.read_text())
    document["_data_files"].reverse()
    state.write_text(json.dumps(document))
    [prompt, *_] = read(tmp_path / "data", FIELDS)
    assert prompt.prompt == "350 + 1"


def test_a_split_of_a_saved_dataset_is_a_subfolder(tmp_path: Path) -> None:
    splits: dict[str | datasets.NamedSplit, datasets.Dataset] = {
        "train": datasets.Dataset.from_list(ROWS),
        "test": datasets.Dataset.from_list(ROWS[:2]),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    message = refused(tmp_path / "data", FIELDS)
    assert message.endswith(f"found the splits train, test, allowed: one; give {tmp_path}/data/SPLIT")
    assert read(tmp_path / "data" / "train", FIELDS) == PROMPTS


@pytest.mark.parametrize("ending", ["", "-a09b74b3ef9c3b56"])
def test_a_split_of_the_hub_is_named_by_its_shards(tmp_path: Path, ending: str) -> None:
    folder = hub(tmp_path / "gsm8k", ending)
    assert refused(folder, FIELDS).endswith(f"a folder in it may be meant: {folder}/data")
    assert refused(folder / "data", FIELDS).endswith(
        f"found the splits test, train, allowed: one; give {folder}/data/SPLIT"
    )
    assert read(folder / "data" / "train", FIELDS) == PROMPTS
    assert len(read(folder / "data" / "test", FIELDS)) == 2
    assert "trian: found" not in refused(folder / "data" / "trian", FIELDS)
    assert "trian cannot be read: No such file or directory" in refused(folder / "data" / "trian", FIELDS)


def test_a_wrong_row_is_named_with_its_shard(tmp_path: Path) -> None:
    table(ROWS[:300], tmp_path / "train-00000-of-00002.parquet")
    table([*ROWS[300:302], {"question": "", "answer": "", "level": 0}], tmp_path / "train-00001-of-00002.parquet")
    for path in (tmp_path, tmp_path / "train"):
        assert refused(path, FIELDS) == (
            f'{tmp_path}/train-00001-of-00002.parquet row 3: prompt: found "", allowed: text, not empty'
        )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train-00000-of-00002"], "found 1 of 2 shards of train; 1 are missing"),
        (["train-00001-of-00003", "train-00002-of-00003"], "found 2 of 3 shards of train; 1 are missing"),
        (["train-00000-of-00002", "train-00001-of-00003"], "or the shards of one split; name a file"),
        (["train", "train-00000-of-00001"], "or the shards of one split; name a file"),
        (
            ["train-00000-of-00001-a09b74b3ef9c3b56", "train-00000-of-00001-b09b74b3ef9c3b56"],
            "found 2 of 1 shards of train; some are there twice",
        ),
    ],
)
def test_shards_are_read_if_each_is_present_once(tmp_path: Path, names: list[str], expected: str) -> None:
    for name in names:
        table(ROWS[:1], tmp_path / f"{name}.parquet")
    assert expected in refused(tmp_path, FIELDS)
    assert expected in refused(tmp_path / "train", FIELDS)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "found a folder with nothing in it, allowed: JSON lines"),
        ({"model.safetensors": "", "config.yaml": ""}, "found a folder with config.yaml, model.safetensors, allowed:"),
        ({"data/train.parquet": ""}, "a folder in it may be meant: {folder}/data"),
        ({"train.parquet/part-0.parquet": ""}, "a folder in it may be meant: {folder}/train.parquet"),
        ({"train.jsonl": "", "test.jsonl": ""}, "found the splits test, train, allowed: one"),
        ({"train.jsonl": "", "train.parquet": ""}, "found train.jsonl, train.parquet, allowed: one file"),
        ({"dataset_dict.json": "[]"}, "found the splits of no name, allowed: one"),
        ({"state.json": "{"}, "state.json cannot be read: not valid JSON"),
        ({"state.json": "[1]"}, "state.json lists no files under _data_files"),
        ({"state.json": '{"_data_files": {"filename": "a"}}'}, "state.json lists no files under _data_files"),
        ({"state.json": '{"_data_files": ["a", {"filename": 3}]}'}, "state.json lists no files under _data_files"),
        ({"state.json": '{"_data_files": [{"filename": "a.arrow"}]}'}, "a.arrow cannot be read: No such file"),
        (
            {"state.json": '{"_data_files": [{"filename": "a"}], "_indices_data_files": [{"filename": "b"}]}'},
            "found a dataset whose rows are picked by an index; save it again",
        ),
    ],
)
def test_the_error_of_another_folder_names_its_content(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert expected.replace("{folder}", str(tmp_path)) in refused(tmp_path, FIELDS)


@pytest.mark.parametrize(
    ("name", "is_of_hub"),
    [("openai/gsm8k", True), ("here/gsm8k", False), ("gsm8k", False), ("data/train.jsonl", False)],
)
def test_the_error_of_a_hub_name_contains_the_download_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_of_hub: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    told = "hf download --repo-type dataset openai/gsm8k --local-dir gsm8k, then give gsm8k" in refused(name)
    assert told is is_of_hub


def test_a_folder_with_one_file_of_lines_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read(tmp_path, FIELDS) == PROMPTS


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    for path in (tmp_path, tmp_path / "train.jsonl", tmp_path / "train"):
        assert "train.jsonl: found a pipe or a device, allowed: JSON lines" in refused(path)


def test_the_digest_of_a_folder_covers_names_and_contents_of_files(tmp_path: Path) -> None:
    def digest(**files: str) -> str:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / f"{name}-00000-of-00001.jsonl").write_text(content)
        found = PromptSource("data", folder).digest()
        for path in folder.iterdir():
            path.unlink()
        return found

    assert digest(a="{}") == digest(a="{}")
    assert len({digest(a="{}"), digest(b="{}"), digest(a="{ }")}) == 3
