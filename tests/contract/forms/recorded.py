"""Samples that an earlier commit made: what the code makes now is held against them.

`OPENSEER_REWRITE=1 pytest tests/contract` writes them anew; read the difference before it is kept.
"""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "samples"
BINARY = "base64:"
"""Before the text of a value that is no plain text."""


def compare(name: str, made: Any) -> None:
    """Fails unless the sample of that name says just what was made now."""
    path = FOLDER / f"{name}.json"
    text = json.dumps(made, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    if os.environ.get("OPENSEER_REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert json.loads(text) == load(name)


def load(name: str) -> Any:
    """A sample as it was recorded."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
