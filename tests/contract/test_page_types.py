"""The page's TypeScript types are those of the models that the server sends."""

import os

from tests.contract.forms.typescript import page_types
from tests.repository import ROOT

WIRE = ROOT / "page" / "src" / "wire.ts"


def test_the_page_has_the_types_of_the_servers_models() -> None:
    made = page_types()
    if os.environ.get("OPENSEER_REWRITE"):
        WIRE.write_text(made, encoding="utf-8")
    assert WIRE.read_text(encoding="utf-8") == made
