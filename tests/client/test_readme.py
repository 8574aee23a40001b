"""The README's snippet for trainers runs as printed, also repeatedly."""

import asyncio
import re
import sys

import pytest

from tests.api.served import TOKEN, served
from tests.repository import ROOT

SERVER = '"http://127.0.0.1:8000", token_file="runs/serve/token"'
"""The arguments that the snippet gives to Client; the test has an address and a token of its own."""


@pytest.mark.slow
async def test_the_snippet_runs_twice_against_one_server() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert SERVER in code
    async with served() as server:
        for _ in range(2):
            trainer = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", code.replace(SERVER, "")),
                env={"OPENSEER_URL": server.url, "OPENSEER_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            printed, _ = await trainer.communicate()
            assert trainer.returncode == 0, printed.decode()
            assert len(printed.splitlines()) >= 2
