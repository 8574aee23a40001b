"""Invalid input gives one readable message before the start."""

import contextlib
import json
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from tests.e2e.workbench import END_SECONDS, Workbench
from tests.repository import ROOT

TINY = ROOT / "examples/tiny-model/model"


def refused(bench: Workbench, *arguments: str, code: int = 2) -> str:
    done = bench.call(*(arguments or ("run", "job.yaml")))
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout
    return " ".join(done.stdout.split())


def test_a_missing_manifest_is_named(bench: Workbench) -> None:
    assert "nothing.yaml: 1 problem cannot be read: No such file" in refused(bench, "run", "nothing.yaml")


def test_the_error_of_invalid_yaml_has_its_position(bench: Workbench) -> None:
    (bench.folder / "job.yaml").write_text("spec: [1,\n  2")
    assert "line 2" in refused(bench)


def test_a_manifest_in_another_encoding_is_reported(bench: Workbench) -> None:
    (bench.folder / "job.yaml").write_bytes(b"name: \xff\xfe")
    assert "not UTF-8" in refused(bench)
    (bench.folder / "job.yaml").write_text("name: a", "utf-16")
    assert "found UTF-16 text, allowed: UTF-8" in refused(bench)


def test_group_size_zero_is_refused_by_its_path(bench: Workbench) -> None:
    bench.write(groupSize=0)
    assert "spec.groupSize: found 0, allowed:" in refused(bench)


def test_an_unknown_policy_is_refused_with_the_known_ones(bench: Workbench) -> None:
    bench.write(rollout={"policy": "fastest"})
    message = refused(bench)
    assert 'spec.rollout.policy: found "fastest"' in message
    assert "context-aware" in message


def test_an_unknown_field_is_refused_with_the_nearest_name(bench: Workbench) -> None:
    bench.write(rollot={"policy": "fifo"})
    assert 'did you mean "rollout"?' in refused(bench)


def test_sampling_that_the_engine_cannot_continue_is_refused(bench: Workbench) -> None:
    bench.write(sampling={"presencePenalty": 0.5})
    assert "cannot continue it exactly" in refused(bench)


def test_a_missing_model_is_named_before_an_engine_starts(bench: Workbench) -> None:
    bench.write(model={"path": "no/such/model"})
    message = refused(bench)
    assert "spec.model.path" in message
    assert "no/such/model" in message


def test_a_folder_without_a_model_is_named(bench: Workbench) -> None:
    (bench.folder / "empty").mkdir()
    bench.write(model={"path": "./empty"})
    assert "./empty" in refused(bench)


def test_unreadable_prompts_are_named(bench: Workbench) -> None:
    bench.write(prompts={"path": "gone.jsonl"})
    assert "spec.prompts.path: gone.jsonl cannot be read: No such file or directory" in refused(bench)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"prompt": "a"}\n{"prompt": \n', "prompts.jsonl line 2: not valid JSON"),
        (b'{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', 'line 2: id "x" is already that of line 1'),
        (b'{"prompt": "\xff"}\n', "prompts.jsonl line 1: not UTF-8"),
        (b"\n\n", "prompts.jsonl: empty"),
        (b'{"prompt": "a", "lengths": [1, 2, 3]}\n', "line 1: lengths"),
    ],
)
def test_an_invalid_prompts_file_is_refused_with_the_line(bench: Workbench, content: bytes, expected: str) -> None:
    bench.write(sampling={"maxTokens": 64})
    (bench.folder / "prompts.jsonl").write_bytes(content)
    assert expected in refused(bench)


@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_prompt_that_no_worker_can_run_is_refused_by_its_line(bench: Workbench, command: str) -> None:
    scripted = {"kvBlocks": 8, "blockTokens": 16}
    bench.write(model={"path": "none", "engine": "scripted", "scripted": scripted}, sampling={"maxTokens": 64})
    prompts = [{"prompt_token_ids": ids} for ids in ([5] * 400, [5], [5, 2**18])]
    (bench.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    told = refused(bench, command, "job.yaml")
    assert "line 1: the prompt's 400 tokens do not fit a worker's KV cache, allowed with the response: 128" in told
    assert "line 3: prompt_token_ids[1]: found token 262144" in told
    assert "line 2" not in told


def test_a_serving_job_is_not_run_as_a_batch(bench: Workbench) -> None:
    path = bench.write()
    document = yaml.safe_load(path.read_text())
    document["spec"]["mode"] = "serve"
    del document["spec"]["prompts"], document["spec"]["sampling"]["forceLengths"]
    path.write_text(yaml.safe_dump(document))
    assert "spec.mode: found serve" in refused(bench)


def test_an_output_path_below_a_file_is_named(bench: Workbench) -> None:
    bench.write()
    (bench.folder / "runs").write_text("a file")
    assert "runs/bench" in refused(bench, code=3)


@pytest.mark.redis
def test_a_resume_with_another_manifest_names_the_changed_fields(bench: Workbench) -> None:
    bench.write(groups=2)
    assert bench.call("run", "job.yaml").returncode == 0
    bench.write(groups=2, sampling={"maxTokens": 256, "forceLengths": True, "topP": 0.5})
    message = refused(bench)
    assert "spec.sampling.maxTokens" in message
    assert "spec.sampling.topP" in message
    assert "--fresh" in message


@pytest.mark.redis
def test_a_resume_with_changed_prompts_is_refused(bench: Workbench) -> None:
    bench.write(groups=2)
    assert bench.call("run", "job.yaml").returncode == 0
    bench.write(groups=3)
    assert "prompts.sha256" in refused(bench)


def test_an_unreachable_redis_is_named_without_its_password(bench: Workbench) -> None:
    bench.write(store={"url": "redis://:secret@127.0.0.1:1/0"})
    message = refused(bench, code=4)
    assert "127.0.0.1:1" in message
    assert "secret" not in message


def test_an_audit_of_a_folder_without_a_run_is_refused(bench: Workbench) -> None:
    (bench.folder / "nothing").mkdir()
    assert "not the folder of a run" in refused(bench, "audit", "nothing")


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Generator[Path]:
    """A file system in memory at `folder`; the test is skipped where mounts are not permitted."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a small or read-only file system needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_unwritable_output_folder_is_named(bench: Workbench) -> None:
    bench.write()
    with mounted(bench.folder / "runs", "ro"):
        assert "runs/bench" in refused(bench, code=3)


@pytest.mark.redis
def test_a_run_on_a_full_disk_reports_it_and_continues_with_space(bench: Workbench) -> None:
    bench.write(groups=24)
    with mounted(bench.folder / "runs", "size=16m") as runs:
        _fill_in_mid_run(bench, runs / "filler")


def _fill_in_mid_run(bench: Workbench, filler: Path) -> None:
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() >= 3, "the first results")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert process.stdout is not None
    told = next((line for line in process.stdout if "cannot write to its disk" in line), "")
    filler.unlink(missing_ok=True)
    output, _ = process.communicate(timeout=END_SECONDS)
    assert "Traceback" not in output
    if process.returncode:  # the results file hit the full disk before the store
        assert process.returncode == 3, output
        done = bench.call("run", "job.yaml")
        assert done.returncode == 0, done.stdout
    else:
        assert told
    bench.assert_whole(24 * 4)
