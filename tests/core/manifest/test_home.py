"""A leading ~ in a manifest's paths."""

from typing import Any

import pytest

from openseer_core.manifest.home import at_home


def spec(home: str) -> dict[str, Any]:
    return {
        "model": {"path": f"{home}/m", "tokenizer": f"{home}/t", "engineArgs": {"download_dir": home, "seed": 1}},
        "prompts": {"path": f"{home}/p.jsonl"},
        "output": {"path": f"{home}/out"},
        "sampling": {"stop": ["~/x"]},
    }


def test_every_path_of_a_manifest_may_begin_with_the_home_folder() -> None:
    document = {"kind": "RolloutJob", "spec": spec("~")}
    assert at_home(document, "/home/ann/") == {"kind": "RolloutJob", "spec": spec("/home/ann")}
    assert document == {"kind": "RolloutJob", "spec": spec("~")}
    assert at_home(document, None) is document


@pytest.mark.parametrize("path", ["~ann/m", "a/~", "gpt2", "./~", 7, None])
def test_a_path_without_a_leading_tilde_is_unchanged(path: Any) -> None:
    assert at_home({"spec": {"model": {"path": path}}}, "/h") == {"spec": {"model": {"path": path}}}


@pytest.mark.parametrize("document", [None, [], {}, {"spec": []}, {"spec": {"model": [], "prompts": "~"}}])
def test_a_document_of_another_shape_is_unchanged(document: Any) -> None:
    assert at_home(document, "/h") == document
