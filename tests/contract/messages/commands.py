"""Mistakes in manifests, prompts and command lines."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from openseer_core.errors import OpenseerError
from openseer_local.main import app
from openseer_local.remote import connection

JOB = "job.yaml"
PROMPTS = "prompts.jsonl"


@dataclass(frozen=True)
class Mistake:
    """A mistake of a user; `what`: in words. `spec` replaces parts of a sound job's spec; `write` changes the folder
    afterwards; `command` runs there."""

    what: str
    spec: Mapping[str, Any] = field(default_factory=dict[str, Any])
    write: Callable[[Path], object] = lambda _: None
    command: Sequence[str] = ("validate", JOB)


def sound(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A job on the scripted engine, with parts of its spec replaced."""
    base: dict[str, Any] = {
        "model": {"path": "none", "engine": "scripted"},
        "prompts": {"path": PROMPTS},
        "groupSize": 4,
        "sampling": {"maxTokens": 64},
        "workers": {"replicas": 2},
    }
    metadata = {"name": "job"}
    return {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": metadata,
        "spec": base | dict(spec),
    }


def manifest(text: str | bytes) -> Callable[[Path], object]:
    """Writes another manifest."""
    return lambda folder: (folder / JOB).write_bytes(text.encode() if isinstance(text, str) else text)


def prompts(*lines: Any) -> Callable[[Path], object]:
    """Writes other prompts: texts unchanged, other values as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return lambda folder: (folder / PROMPTS).write_text("\n".join(texts) + "\n")


def without_prompts(folder: Path) -> None:
    """Writes a job of mode serve."""
    document = sound({"mode": "serve"})
    del document["spec"]["prompts"]
    (folder / JOB).write_text(yaml.safe_dump(document))


SMALL_KV = {"path": "none", "engine": "scripted", "scripted": {"kvBlocks": 8, "blockTokens": 16}}

MANIFEST = (
    Mistake("names a file that is missing", command=("validate", "jb.yaml")),
    Mistake("is not YAML", write=manifest("spec: [1,\n  2")),
    Mistake("is saved as UTF-16", write=manifest("kind: a".encode("utf-16"))),
    Mistake("is of another kind", write=manifest("apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec: {}\n")),
    Mistake("has a field that is misspelled", {"rollot": {"policy": "fifo"}}),
    Mistake("has a number that is out of range", {"groupSize": 0}),
    Mistake("has a text where a number belongs", {"groupSize": "eight"}),
    Mistake("has a policy that does not exist", {"rollout": {"policy": "fastest"}}),
    Mistake("lacks the prompts", {"prompts": {}}),
    Mistake("sets a sampling field that cannot be continued exactly", {"sampling": {"presencePenalty": 0.5}}),
    Mistake("asks for a temperature below zero", {"sampling": {"maxTokens": 64, "temperature": -1}}),
    Mistake("names a model that is missing", {"model": {"path": "no/such/model"}}),
    Mistake(
        "sets an engine argument that openseer sets itself", {"model": {"path": "none", "engineArgs": {"seed": 1}}}
    ),
    Mistake("has a store URL that is not of Redis", {"store": {"url": "http://redis:6379"}}),
    Mistake(
        "has a name that Kubernetes refuses", write=manifest(yaml.safe_dump(sound({}) | {"metadata": {"name": "A_b"}}))
    ),
    Mistake("is of mode serve and has prompts", {"mode": "serve"}),
    Mistake("is of mode serve and is run as a batch", write=without_prompts, command=("run", JOB)),
    Mistake("is of mode batch and is served", command=("serve", JOB)),
)
PROMPT_FILES = (
    Mistake("is missing", write=lambda folder: (folder / PROMPTS).unlink()),
    Mistake("is empty", write=prompts("", "")),
    Mistake("has a line that is not JSON", write=prompts({"prompt_token_ids": [5]}, '{"prompt": ')),
    Mistake(
        "has a line that is not UTF-8", write=lambda folder: (folder / PROMPTS).write_bytes(b'{"prompt": "\xff"}\n')
    ),
    Mistake("has a line with neither text nor tokens", write=prompts({"id": "a"})),
    Mistake("has a misspelled field", write=prompts({"promt": "a"})),
    Mistake("has the same id twice", write=prompts(*[{"id": "x", "prompt_token_ids": [5]}] * 2)),
    Mistake("has a token outside the model's vocabulary", write=prompts({"prompt_token_ids": [5, 2**18]})),
    Mistake("has a prompt that fits no worker", {"model": SMALL_KV}, prompts({"prompt_token_ids": [5] * 400})),
    Mistake(
        "has fewer lengths than the group has responses",
        {"sampling": {"maxTokens": 64, "forceLengths": True}},
        prompts({"prompt_token_ids": [5], "lengths": [1]}),
    ),
)
RUNS = (
    Mistake("`audit` of a folder that holds no run", command=("audit", ".")),
    Mistake("`explain` of a folder that is missing", command=("explain", "runs/jb")),
    Mistake("`compare` of a run that is missing", command=("compare", "runs/a", "runs/b")),
    Mistake("`view` of a folder that holds no run", command=("view", ".")),
    Mistake(
        "`export` into a format that does not exist", command=("export", ".", "--output", "a.csv", "--format", "csv")
    ),
    Mistake("`export` to a file with another format's suffix", command=("export", ".", "--output", "a.csv")),
    Mistake("`status` without an address", command=("status",)),
    Mistake(
        "`status` of a server that does not answer", command=("status", "--url", "http://127.0.0.1:1", "--token", "a")
    ),
    Mistake(
        "`status` with a token file that is missing",
        command=("status", "--url", "http://127.0.0.1:1", "--token-file", "no-token"),
    ),
    Mistake("`submit` of a file that is missing", command=("submit", "no-groups.jsonl", "--token", "a")),
)


def message(mistake: Mistake, folder: Path, patch: pytest.MonkeyPatch) -> tuple[str, int]:
    """The message and the exit code of the command, in a folder of its own."""
    (folder / JOB).write_text(yaml.safe_dump(sound(mistake.spec)))
    (folder / PROMPTS).write_text('{"prompt_token_ids": [5, 6, 7]}\n')
    mistake.write(folder)
    patch.chdir(folder)
    patch.setattr(connection, "PATIENCE_SECONDS", 0.1)
    for name in [name for name in os.environ if name.startswith("OPENSEER_")]:
        patch.delenv(name)
    try:
        app(list(mistake.command), standalone_mode=False)
    except OpenseerError as error:
        return str(error), error.exit_code
    except Exception as error:
        told = getattr(error, "format_message", None)  # of an error of the command line's parser
        if told is None:
            raise
        return str(told()), 2
    raise AssertionError(f"the command accepted the mistake: {mistake.what}")
