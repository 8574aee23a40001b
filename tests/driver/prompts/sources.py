"""Writes prompt sources for tests, and reads a job's prompts from them."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from openseer_core.errors import PromptsError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.prompts import PromptLine, PromptRules, parse_prompts
from openseer_driver.prompts.source import open_source


def table(rows: list[dict[str, Any]], path: Path) -> Path:
    """Writes a Parquet file with the columns of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def saved(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Writes a dataset of two shards as `datasets` saves it."""
    datasets.Dataset.from_list(rows).save_to_disk(str(folder), num_shards=2)
    return folder


def job_of(path: Path | str, fields: dict[str, Any] | None = None) -> RolloutJob:
    """A job whose prompts are at a path or a URL."""
    place = {"url": path} if str(path).startswith("http") else {"path": str(path)}
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "job"},
        "spec": {
            "model": {"path": "none", "engine": "scripted"},
            "prompts": place | ({"fields": fields} if fields else {}),
            "groupSize": 2,
        },
    }
    return parse_job(document, "job")


def read(path: Path | str, fields: dict[str, Any] | None = None) -> list[PromptLine]:
    """All prompts of a source."""
    job = job_of(path, fields)
    source = open_source(job)
    return list(parse_prompts(source.rows(), source.name, PromptRules.of(job.spec)))


def refused(path: Path | str, fields: dict[str, Any] | None = None) -> str:
    """The problems of an unreadable source, without the source's name before each."""
    with pytest.raises(PromptsError) as caught:
        read(path, fields)
    return "\n".join(caught.value.problems)
