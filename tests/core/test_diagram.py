"""The diagram in the documentation is the table of transitions."""

from pathlib import Path

from openseer_core.life import diagram

ROOT = Path(__file__).parents[2]


def test_the_state_diagram_in_the_documentation_is_generated_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in (ROOT / "docs/ARCHITECTURE.md").read_text()
