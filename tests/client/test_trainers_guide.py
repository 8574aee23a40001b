"""The snippets of the guide for trainers run as printed."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.api.served import TOKEN, served
from tests.repository import ROOT

GUIDE = (ROOT / "docs/trainers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python([^\n]*)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
# This fleet plays responses without weights, so its scores cannot match a model's canary.
PLAYED = [code for kind, code in BLOCKS if "notest" not in kind and "torch" not in code]


@pytest.mark.slow
async def test_snippets_run_one_after_another_against_the_real_api(tmp_path: Path) -> None:
    assert len(PLAYED) == 6
    async with served() as server:
        for code in PLAYED:
            (tmp_path / "snippet.py").write_text(code)
            done = await asyncio.create_subprocess_exec(
                *(sys.executable, str(tmp_path / "snippet.py")),
                cwd=ROOT,
                env={"OPENSEER_URL": server.url, "OPENSEER_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            printed, _ = await done.communicate()
            assert done.returncode == 0, printed.decode()
            assert printed
