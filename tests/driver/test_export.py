"""A run's results as Parquet: each row equals its line, in every reader."""

# pyarrow, pandas and datasets have no complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openseer_core.errors import InputError, OutputError
from openseer_driver import export
from openseer_driver.export import export_parquet
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine, RoutedLine
from tests.driver.sample_runs import SMALL, run_record, write_run

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run whose first result has every optional field."""
    write_run(tmp_path / "run", replace(SMALL, seed=3))
    found = RunFolder(tmp_path / "run")
    lines = list(found.results())
    routed = RoutedLine("routed_experts/0.npy", 0, [3, 2, 8], "uint8", 1, [(1, 2)])
    full: dict[str, Any] = {
        "text": "é \u2028",
        "metadata": {"answer": 4, "tags": ["a", None]},
        "top_logprobs": [[(7, -0.1), (9, -2.5)], []],
        "routed_experts": routed,
        "logprobs": [None, -0.25],
    }
    lines[0] = msgspec.structs.replace(lines[0], **full)
    found.results_file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return found


def test_every_row_equals_its_line(folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PIECE_ROWS", 7)
    output = tmp_path / "results.parquet"
    output.write_text("an older one")
    lines = list(folder.results())
    assert export_parquet(folder, output) == len(lines)

    rows = datasets.Dataset.from_parquet(str(output), cache_dir=str(tmp_path / "cache")).to_list()
    assert len(rows) == len(lines)
    assert [back(row) for row in rows] == lines
    frame = pandas.read_parquet(output)
    assert list(frame.columns) == [field.name for field in msgspec.structs.fields(ResultLine)]
    assert [len(tokens) for tokens in frame["token_ids"]] == [len(line.token_ids) for line in lines]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "results.parquet", "run"]


def back(row: dict[str, Any]) -> ResultLine:
    """Converts a row back to its line."""
    metadata, likeliest, routed = row["metadata"], row["top_logprobs"], row["routed_experts"]
    if likeliest is not None:
        likeliest = [[(each["token_id"], each["logprob"]) for each in one] for one in likeliest]
    if routed is not None:
        routed = {**routed, "missing": [(gap["start"], gap["end"]) for gap in routed["missing"]]}
    told = {"metadata": json.loads(metadata) if metadata else None, "top_logprobs": likeliest, "routed_experts": routed}
    return msgspec.convert({**row, **told}, ResultLine)


def test_a_run_without_results_gives_an_empty_table(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.write_run(run_record("run", SMALL, 1.0))
    with pytest.raises(InputError, match=r"no results\.jsonl in this folder"):
        export_parquet(folder, tmp_path / "results.parquet")
    folder.results_file.touch()
    assert export_parquet(folder, tmp_path / "results.parquet") == 0
    assert len(pandas.read_parquet(tmp_path / "results.parquet")) == 0


@pytest.mark.parametrize("what", ["prompts", "likeliest"])
def test_a_row_group_holds_few_long_rows(folder: RunFolder, tmp_path: Path, what: str) -> None:
    line = next(folder.results())
    if what == "prompts":
        line = msgspec.structs.replace(line, prompt_token_ids=list(range(100_000, 600_000)))
    else:
        line = msgspec.structs.replace(line, top_logprobs=[[(token, -0.125) for token in range(20)]] * 15_000)
    folder.results_file.write_bytes(3 * (msgspec.json.encode(line) + b"\n"))
    output = tmp_path / "results.parquet"
    assert export_parquet(folder, output) == 3
    assert parquet.ParquetFile(output).num_row_groups == 2


class MeanwhileExported(RunFolder):
    """A run that another process exports to the same file while its results are read."""

    output: Path

    def sized_results(self) -> Iterator[tuple[ResultLine, int]]:
        results = super().sized_results()
        yield next(results)
        export_parquet(RunFolder(self.path), self.output)
        yield from results


def test_concurrent_exports_to_one_file_leave_a_whole_file(folder: RunFolder, tmp_path: Path) -> None:
    both = MeanwhileExported(folder.path)
    both.output = tmp_path / "results.parquet"
    count = export_parquet(both, both.output)
    assert len(pandas.read_parquet(both.output)) == count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.parquet", "run"]


def test_a_broken_line_leaves_the_old_file_and_no_temporary_one(folder: RunFolder, tmp_path: Path) -> None:
    output = tmp_path / "results.parquet"
    assert export_parquet(folder, output) > 0
    before = output.read_bytes()
    with folder.results_file.open("ab") as file:
        file.write(b'{"batch": "none"}\n')
    with pytest.raises(InputError):
        export_parquet(folder, output)
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.parquet", "run"]


def test_an_unwritable_target_and_a_missing_run_are_reported(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        export_parquet(folder, tmp_path / "nowhere" / "results.parquet")
    with pytest.raises(InputError, match="not the folder of a run"):
        export_parquet(RunFolder(tmp_path), tmp_path / "results.parquet")


def test_the_command_exports_or_names_the_missing_package(folder: RunFolder, tmp_path: Path) -> None:
    def call(before: str) -> subprocess.CompletedProcess[str]:
        script = f"import sys; {before}; from openseer_local.main import main; main()"
        command = [sys.executable, "-c", script, "export", str(folder.path), "-o", "r.parquet", "--json"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)

    done = call("pass")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "output": "r.parquet",
        "format": "parquet",
        "results": len(pandas.read_parquet(tmp_path / "r.parquet")),
    }
    without = call("sys.modules['pyarrow'] = None")
    assert without.returncode == InputError.exit_code
    assert "pip install 'openseer[datasets]'" in without.stderr
