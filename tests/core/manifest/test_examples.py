"""Every example is a valid job whose prompts are valid too."""

from pathlib import Path

import pytest
import yaml

from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.prompts import PromptRow, PromptRules, parse_prompts
from tests.repository import JOB_EXAMPLES, ROOT


def job_of(path: Path) -> RolloutJob:
    """The one RolloutJob among a file's documents."""
    (document,) = (document for document in yaml.safe_load_all(path.read_text()) if document["kind"] == "RolloutJob")
    return parse_job(document, str(path))


@pytest.mark.parametrize("path", JOB_EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid_and_its_paths_exist(path: Path) -> None:
    spec = job_of(path).spec
    if spec.prompts is not None and spec.prompts.path is not None:
        lines = (ROOT / spec.prompts.path).read_bytes().split(b"\n")
        rows = [PromptRow(number, f"line {number}", line) for number, line in enumerate(lines, start=1)]
        assert list(parse_prompts(rows, spec.prompts.path, PromptRules.of(spec)))


@pytest.mark.parametrize(
    "path", [path for path in JOB_EXAMPLES if path.parent.name == "cluster"], ids=lambda path: path.name
)
def test_a_cluster_example_has_its_files_name_and_states_its_needs(path: Path) -> None:
    job = job_of(path)
    assert (job.name, job.metadata.namespace) == (path.stem, None)
    assert "\n# Needs: " in path.read_text()
