"""Dataset lines of verl, TRL and slime, with the one mapping each that docs/prompts.md gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.manifest.prompts import PromptLine
from tests.driver.prompts.sources import read, saved, table
from tests.repository import ROOT

CHAT = [{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1?"}]
VERL: dict[str, Any] = {
    "data_source": "openai/gsm8k",
    "prompt": CHAT,
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "extra_info": {"split": "train", "index": 17, "question": "1 + 1?"},
}
VERL_COLUMNS = ("data_source", "ability", "reward_model", "extra_info")
COMPLETION = [{"role": "assistant", "content": "2"}]
ROWS: dict[str, dict[str, Any]] = {
    "verl": VERL,
    "TRL": {"prompt": "1 + 1?", "solution": "2"},
    "TRL, conversational": {"prompt": CHAT, "solution": "2"},
    "TRL, prompt and completion": {"prompt": CHAT, "completion": COMPLETION},
    "slime": {"prompt": CHAT, "label": "2"},
    "slime, text and metadata": {"prompt": "1 + 1?", "label": "2", "metadata": {"level": 1, "tools": None}},
}
ANSWERED: dict[str, dict[str, Any]] = {
    "verl": {"metadata": {name: VERL[name] for name in VERL_COLUMNS}},
    "TRL": {"metadata": {"solution": "2"}},
    "TRL, conversational": {"metadata": {"solution": "2"}},
    "TRL, prompt and completion": {"metadata": {"completion": COMPLETION}},
    "slime": {"metadata": {"label": "2"}},
    "slime, text and metadata": {"metadata": {"label": "2", "metadata": {"level": 1, "tools": None}}},
}


def documented() -> dict[str, dict[str, Any]]:
    """The mappings of docs/prompts.md, by trainer."""
    rows = [line.split("|") for line in (ROOT / "docs/prompts.md").read_text().splitlines() if "`{" in line]
    return {row[1].strip(): yaml.safe_load(row[3].strip().strip("`")) for row in rows}


@pytest.mark.parametrize("trainer", ROWS)
@pytest.mark.parametrize("kind", ["lines", "parquet", "saved"])
def test_a_trainers_usual_line_is_a_prompt(tmp_path: Path, trainer: str, kind: str) -> None:
    path, row = tmp_path / "train", ROWS[trainer]
    rows = [row, row]  # verl counts extra_info.index separately in each of its sources
    if kind == "parquet":
        table(rows, path)
    elif kind == "saved":
        saved(rows, path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = row["prompt"] if isinstance(row["prompt"], str) else None
    expected = PromptLine(
        "line-1",
        1,
        prompt=text,
        messages=None if text else tuple(CHAT),
        metadata=ANSWERED[trainer]["metadata"],
    )
    assert read(path, documented()[trainer])[0] == expected


def test_every_documented_mapping_is_tested() -> None:
    assert documented().keys() == ROWS.keys()
