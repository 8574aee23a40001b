"""Every example is a valid job whose prompts are valid too."""

from pathlib import Path

import pytest
import yaml

from openseer_core.manifest import parse_job
from openseer_core.prompts import parse_prompts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_valid_and_its_paths_exist(path: Path) -> None:
    job = parse_job(yaml.safe_load(path.read_text()), str(path))
    spec = job.spec
    if spec.prompts is not None and spec.prompts.path is not None:
        lines = (ROOT / spec.prompts.path).read_bytes().split(b"\n")
        assert parse_prompts(lines, spec.prompts.path, group_size=spec.group_size, need_lengths=spec.needs_lengths)
