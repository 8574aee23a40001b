"""Pages of docs/ that are made from the code, whole or between two marks."""

import os
import re
from collections.abc import Mapping

from tests.repository import ROOT


def holds(name: str, parts: Mapping[str, str]) -> None:
    """Fails unless docs/NAME has each part between `<!-- MARK -->` and `<!-- end -->`.

    OPENSEER_REWRITE=1 writes it. Raises AssertionError in both cases if a mark is missing or occurs twice.
    """
    page = ROOT / "docs" / name
    made = page.read_text(encoding="utf-8")
    for mark, text in parts.items():
        filled = re.escape(f"<!-- {mark} -->\n") + ".*?" + re.escape("<!-- end -->")
        found = re.findall(filled, made, flags=re.DOTALL)
        assert len(found) == 1, f"docs/{name} has the mark {mark} {len(found)} times"
        made = made.replace(found[0], f"<!-- {mark} -->\n{text}<!-- end -->")
    if os.environ.get("OPENSEER_REWRITE"):
        page.write_text(made, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == made, f"docs/{name} differs from the code: {REWRITE}"


REWRITE = "OPENSEER_REWRITE=1 python -m pytest tests/contract rewrites it"


def cell(text: object) -> str:
    """Text for one cell of a Markdown table, with its markup escaped."""
    plain = " ".join(str(text).split())
    return re.sub(r"(`[^`]*`)|[|*<]", _escaped, plain)


def _escaped(found: re.Match[str]) -> str:
    code = found[1]
    if code:
        return code.replace("|", "\\|")
    return {"|": "\\|", "*": "\\*", "<": "&lt;"}[found[0]]
