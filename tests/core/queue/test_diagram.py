"""The diagram in the documentation is the table of transitions."""

from openseer_core.queue.states import diagram
from tests.repository import ROOT


def test_the_state_diagram_in_the_docs_is_generated_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in (ROOT / "docs/ARCHITECTURE.md").read_text()
