"""Samples of an earlier commit, with which the output of the present code is compared.

`OPENSEER_REWRITE=1 pytest tests/contract` rewrites them; read the difference before you commit it.
"""

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "samples"
BINARY = "base64:"
"""Prefix of a value in base64."""


def compare(name: str, made: Any) -> None:
    """Fails unless `made` equals the sample of that name."""
    path = FOLDER / f"{name}.json"
    text = json.dumps(made, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    if os.environ.get("OPENSEER_REWRITE"):
        path.write_text(text, encoding="utf-8")
    assert json.loads(text) == load(name)


def load(name: str) -> Any:
    """A sample as it was recorded."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
