"""The suffix of the file that `openseer export` writes."""

from pathlib import Path

import pytest

from openseer_core.errors import InputError
from openseer_local.main import ExportFormat


@pytest.mark.parametrize("name", ["x.csv", "x.parquet.jsonl", "x.txt"])
def test_a_suffix_of_another_format_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"--output: x.*, but the format is parquet; name it x"):
        ExportFormat.PARQUET.check(Path(name))


@pytest.mark.parametrize("name", ["x.parquet", "x.PARQUET", "x", "runs.old/x", "/dev/stdout"])
def test_its_own_suffix_and_none_are_accepted(name: str) -> None:
    ExportFormat.PARQUET.check(Path(name))
