"""docs/errors.md lists common mistakes with the messages and codes that they cause."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient

from openseer_api.app import create_app
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job
from tests.contract.messages.calls import CALLS, GROUP, Call, answer
from tests.contract.messages.commands import MANIFEST, PROMPT_FILES, RUNS, Mistake, message
from tests.repository import ROOT

PAGE = ROOT / "docs" / "errors.md"
HOME = "/data/job"
"""Replaces the folder of a command in its message."""
REWRITE = bool(os.environ.get("OPENSEER_REWRITE"))
"""Read before a command runs, because commands run without openseer's variables."""
HEAD = "| mistake | message | code |\n|---|---|---|\n"


def held(mark: str, rows: Sequence[tuple[str, str, int]]) -> None:
    """Fails unless the page has exactly these rows at the mark; `OPENSEER_REWRITE=1` writes them."""
    begin, end = f"<!-- {mark} -->\n", "<!-- end -->"
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    assert found, mark
    made = HEAD + "".join(f"| {what} | {_cell(text)} | {code} |\n" for what, text, code in rows)
    old, _, after = rest.partition(end)
    if REWRITE:
        PAGE.write_text(f"{before}{begin}{made}{end}{after}", encoding="utf-8")
        return
    assert old == made


def _cell(text: str) -> str:
    lines = [line.strip().replace("|", "\\|") for line in text.splitlines()]
    return "<br>".join(f"`` {line} ``" if "`" in line else f"`{line}`" for line in lines)


@pytest.mark.parametrize(
    ("mark", "mistakes"), [("manifest", MANIFEST), ("prompts", PROMPT_FILES), ("commands", RUNS)], ids=lambda part: part
)
def test_the_page_has_the_messages_of_the_commands(
    mark: str, mistakes: Sequence[Mistake], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[str, str, int]] = []
    for number, mistake in enumerate(mistakes):
        folder = tmp_path / str(number)
        folder.mkdir()
        text, code = message(mistake, folder, monkeypatch)
        rows.append((mistake.what, text.replace(str(folder), HOME), code))
    held(mark, rows)


async def test_the_page_has_the_error_messages_of_the_api() -> None:
    app = create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://openseer") as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for path, body in (("", {}), ("", {}), ("/1/groups", {"groups": [GROUP]}), ("/2/seal", None)):
            (await http.post(f"/v1/batches{path}", json=body, headers=headers)).raise_for_status()
        held("calls", [(call.what, *await answer(http, call)) for call in CALLS])


def test_fifty_mistakes_are_shown() -> None:
    every: list[Mistake | Call] = [*MANIFEST, *PROMPT_FILES, *RUNS, *CALLS]
    assert len({mistake.what for mistake in every}) == len(every) >= 50
