"""The files of a run: their names, and the fields of reports, results, samples and audits."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openseer_driver.audit.audit import AuditReport
from openseer_driver.audit.rules import Violation
from openseer_driver.report.report import make_report
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder
from tests.contract.forms.recorded import compare, load
from tests.driver.sample_runs import SMALL, write_run

SHAPE = replace(SMALL, groups=4, size=4, mean=40.0, workers=2, drafts=True)
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A small run that drafted."""
    path = tmp_path_factory.mktemp("runs") / "small"
    write_run(path, SHAPE)
    return RunFolder(path)


def tree(value: Any) -> Any:
    """Keys and kinds of a value; equal entries of a list are merged."""
    if isinstance(value, dict):
        fields: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        return {name: tree(entry) for name, entry in fields.items()}
    if isinstance(value, list):
        entries: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        kinds = {json.dumps(tree(entry), sort_keys=True) for entry in entries}
        return [json.loads(kind) for kind in sorted(kinds)]
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else "text"


def lines(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_report_keeps_its_fields(folder: RunFolder) -> None:
    compare("report", tree(json.loads(make_report(read_trace(folder)).to_json())))


def test_result_lines_keep_their_fields(folder: RunFolder) -> None:
    compare("result_line", tree(lines(folder.results_file)))


def test_samples_and_the_run_keep_their_fields(folder: RunFolder) -> None:
    samples = [
        {**line, "workers": sorted({name for one in line["workers"].values() for name in one})}
        for line in lines(folder.samples_file)
    ]
    last = lines(folder.samples_file)[-1]["workers"]["worker-0"]
    counts = sorted({name.split("_")[0] for name in last["drafts"]})
    found = {"sample": tree(samples), "worker": tree({**last, "drafts": {}}), "counts begin with": counts}
    compare("run_files", found | {"run": tree(json.loads(folder.run_file.read_bytes()))})


def test_files_of_an_earlier_commit_are_read(folder: RunFolder, tmp_path: Path) -> None:
    if os.environ.get("OPENSEER_REWRITE"):
        first = {path.name: lines(path)[0] for path in (folder.results_file, folder.samples_file)}
        compare("run_lines", first | {folder.run_file.name: json.loads(folder.run_file.read_bytes())})
    old, kept = RunFolder(tmp_path), load("run_lines")
    for name, document in kept.items():
        (tmp_path / name).write_text(json.dumps(document) + "\n", encoding="utf-8")
    [result], [sample], [fact] = old.results(), old.samples(), old.facts()
    assert json.loads(msgspec.json.encode(result)) == kept[folder.results_file.name]
    assert json.loads(msgspec.json.encode(sample)) == kept[folder.samples_file.name]
    assert json.loads(msgspec.json.encode(old.read_run())) == kept[folder.run_file.name]
    assert fact.length == len(result.token_ids)


def test_an_audit_keeps_its_fields() -> None:
    report = AuditReport(groups=1, requests=2, results=3, events=4, unfinished=5)
    report.add(Violation("missing", "0/g/1", "nothing", "a result"))
    found = tree(json.loads(msgspec.json.encode(report.as_dict())))
    compare("audit", found)


def test_files_of_a_run_keep_their_names(folder: RunFolder) -> None:
    written = sorted(path.name for path in folder.path.iterdir())
    rest = {
        "job": folder.job_file,
        "report": folder.report_file,
        "page": folder.report_page,
        "audit": folder.audit_file,
        "store": folder.store_folder,
        "logs": folder.logs_folder,
    }
    compare("file_names", {"written": written, "rest": {what: path.name for what, path in rest.items()}})
