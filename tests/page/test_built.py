"""The built page is small, matches its sources, and loads nothing from other hosts."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.page.played_server import STATIC
from tests.repository import ROOT

SOURCE = ROOT / "page"
MOST_BYTES = 150_000
BUILT = [path for path in STATIC.rglob("*") if path.is_file()]


def test_the_built_page_is_small() -> None:
    assert BUILT
    assert sum(path.stat().st_size for path in BUILT) <= MOST_BYTES


def test_built_files_have_hashes_in_their_names() -> None:
    for path in BUILT:
        assert path.name == "index.html" or re.search(r"-[\w-]{8}\.\w+$", path.name), path.name


def test_the_page_obeys_the_content_security_policy() -> None:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", html)
    for path in BUILT:
        if path.suffix == ".css":
            assert not re.search(r"https?://|@import", path.read_text(encoding="utf-8"))


def test_the_lock_names_no_registry() -> None:
    packages = json.loads((SOURCE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in packages.items() if name)


CAN_BUILD = shutil.which("npm") is not None and (SOURCE / "node_modules").exists()


@pytest.mark.skipif(not CAN_BUILD, reason="Node.js is missing, or npm ci in page/")
def test_the_built_page_matches_its_sources(tmp_path: Path) -> None:
    command = ["npm", "run", "build", "--", "--outDir", str(tmp_path)]
    built = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    fresh = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert fresh == {str(path.relative_to(STATIC)): path.read_bytes() for path in BUILT}, "make page"
