"""Routed experts of results are numpy arrays in files beside results.jsonl."""

from pathlib import Path

import numpy as np
import pytest

from openseer_core.errors import OutputError
from openseer_driver.routed import RoutedFiles
from openseer_driver.run_folder import RunFolder
from tests.store.routed.test_assembly import chunk, lease, put, put_prompt, result, rows


def test_an_array_is_written_for_each_result(tmp_path: Path) -> None:
    job, run = tmp_path / "rows", RunFolder(tmp_path / "run")
    put_prompt(job)
    put(job, lease(0, 1), (3, rows(3, 1)))
    line = RoutedFiles.begin(job, run, fresh=False).write(result(3, chunk(0, 3, 1)))
    assert line is not None
    assert (line.start, line.shape, line.dtype, line.gaps, line.missing) == (0, [6, 1, 2], "uint8", 2, [(4, 6)])
    np.testing.assert_array_equal(np.load(run.path / line.file)[:, 0, 0], [0, 1, 2, 3, 0, 0])


def test_a_new_run_deletes_the_rows_of_another(tmp_path: Path) -> None:
    put_prompt(tmp_path / "rows")
    RoutedFiles.begin(tmp_path / "rows", RunFolder(tmp_path), fresh=True)
    assert not (tmp_path / "rows").exists()


def test_an_array_that_cannot_be_written_ends_the_run_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "routed_experts").write_text("in the way")
    with pytest.raises(OutputError, match="routed_experts"):
        RoutedFiles(tmp_path / "rows", RunFolder(tmp_path)).write(result(1))
