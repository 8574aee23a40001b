"""The pages that list all metrics or fields are complete, and their examples are valid."""

import re
from pathlib import Path

import yaml

from openseer_core.manifest.generation import Scripted
from openseer_core.manifest.parse import parse_job
from openseer_core.manifest.prompts import PromptRow, PromptRules, parse_prompts
from openseer_core.wire.batches import BatchMetrics

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_metric_of_a_batch_is_in_the_trainers_page() -> None:
    page = (DOCS / "trainers.md").read_text()
    table = page[page.index("### Metrics of a batch") :].split("In the logger that you have")[0]
    named = {name for _, name in re.findall(r"`(rollout/|…)([a-z_]+)`", table)}
    assert named == set(BatchMetrics.model_fields)


def test_every_field_of_the_scripted_engine_is_in_its_page() -> None:
    page = (DOCS / "scripted-engine.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == {field.alias or name for name, field in Scripted.model_fields.items()}


def test_the_manifest_and_prompts_of_the_scripted_engines_page_are_valid() -> None:
    page = (DOCS / "scripted-engine.md").read_text()
    [manifest] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    [prompts] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    job = parse_job(yaml.safe_load(manifest), "docs")
    lines = prompts.strip().splitlines()
    rows = [PromptRow(number, f"line {number}", line.encode()) for number, line in enumerate(lines, start=1)]
    lengths = [line.lengths for line in parse_prompts(rows, "docs", PromptRules.of(job.spec))]
    assert lengths == [(120, 90, 400, 150), (30, 44, 25, 60)]
