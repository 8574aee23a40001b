"""The file of --job: its problems are reported with their place and advice."""

import json
from pathlib import Path

import pytest
import yaml

from openseer_core.errors import ManifestError
from openseer_process.job_file import read_job_file

DOCUMENT = {
    "apiVersion": "openseer.dev/v1alpha1",
    "kind": "RolloutJob",
    "metadata": {"name": "job"},
    "spec": {
        "model": {"path": "~/model", "engine": "scripted"},
        "prompts": {"path": "prompts.jsonl"},
        "groupSize": 2,
        "sampling": {"maxTokens": 16},
        "workers": {"replicas": 1},
    },
}


def test_a_manifest_in_json_is_read_with_the_home_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "job.json"
    file.write_text(json.dumps(DOCUMENT))
    document, job = read_job_file(file)
    assert job.name == "job"
    assert document["spec"]["model"]["path"] == f"{tmp_path}/model"


def test_a_manifest_in_yaml_is_refused_with_the_way_to_json(tmp_path: Path) -> None:
    file = tmp_path / "slow.yaml"
    file.write_text(yaml.safe_dump(DOCUMENT))
    with pytest.raises(ManifestError) as caught:
        read_job_file(file)
    for part in ("slow.yaml", "not JSON", "--job takes the manifest as JSON", "job.json", "kubectl create --dry-run"):
        assert part in str(caught.value)


def test_a_file_that_is_absent_or_no_text_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no\.json(.|\n)*cannot be read"):
        read_job_file(tmp_path / "no.json")
    (tmp_path / "image.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"image\.json(.|\n)*not JSON"):
        read_job_file(tmp_path / "image.json")
