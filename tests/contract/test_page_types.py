"""The page's own types are those of the models that it is sent."""

import os

from tests.contract.forms.typescript import page_types
from tests.repository import ROOT

WIRE = ROOT / "page" / "src" / "wire.ts"


def test_the_page_takes_what_the_server_sends() -> None:
    made = page_types()
    if os.environ.get("OPENSEER_REWRITE"):
        WIRE.write_text(made, encoding="utf-8")
    assert WIRE.read_text(encoding="utf-8") == made
