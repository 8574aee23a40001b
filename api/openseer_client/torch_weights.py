"""Saves a torch model's weights for the fleet as folders of safetensors, and computes the canary that checks them."""

# torch's types are partial: its values are Any here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import filecmp
import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from openseer_client.client import Client
from openseer_core.errors import InputError, OutputError
from openseer_core.weights.adapters import CONFIG, TENSORS
from openseer_core.weights.digest import PIECE_BYTES, FileDigest, version_digest
from openseer_core.weights.publish import AdapterSpec, Canary, Deadlines, Publish, PublishMode, Source
from openseer_core.wire.weights import Transaction

SHARD_BYTES = 4 * 2**30
"""Size of the tensors, in bytes, at which a shard is written."""
_WHOLE = "model.safetensors"
_TEMPORARY = ".writing-"
_PUBLISHED = ".published"
"""Name of a file that marks the folder of a version that the fleet has confirmed, and may still serve."""


class SavesItself(Protocol):
    """A model with `save_pretrained`: of transformers, or of PEFT, which saves only the adapter."""

    def save_pretrained(self, save_directory: str, **more: Any) -> Any: ...


class WeightsFolder:
    """A folder that trainer and workers can access, with one folder of safetensors per version.

    A version's folder appears complete or not at all. The latest `keep` versions are kept, because the fleet may return
    to the previous version, and a worker that starts later loads the current one. So adapters of different names need
    different WeightsFolders. Versions passed to `note_published` are counted separately, so the served version is kept
    after any number of failed publishes. Raises OutputError if it cannot write, and InputError for other weights under
    the name of a published version.
    """

    def __init__(self, path: str | Path, *, keep: int = 3) -> None:
        if keep < 2:
            raise InputError(f"keep: found {keep}, needed: at least 2, the current version and the one to go back to")
        self.path = Path(path).absolute()
        self._keep = keep

    def save(self, model: SavesItself, version: str, *, state: Mapping[str, Any] | None = None) -> Path:
        """Writes a transformers model, or the adapter of a PEFT model; returns the version's folder. `state`: the
        gathered parameters, if they are distributed over processes."""
        more = {"state_dict": state} if state is not None else {}
        with self._folder(version) as folder:
            model.save_pretrained(str(folder), **more)
        return self.path / version

    @contextmanager
    def writing(self, version: str) -> "Generator[Shards, None, None]":
        """A context that writes named tensors as they are added, with at most one shard in memory.
        The version's folder appears at its end."""
        with self._folder(version) as folder:
            shards = Shards(folder)
            yield shards
            shards.finish()

    def note_published(self, version: str) -> None:
        """Marks a version as confirmed by the fleet. Call it after each successful publish."""
        try:
            (self.path / version / _PUBLISHED).touch()
        except OSError as error:
            raise OutputError(f"weights {self.path / version}: {error.strerror or error}") from error

    @contextmanager
    def _folder(self, version: str) -> Generator[Path, None, None]:
        """A context with a temporary folder, which becomes the version's folder at the end."""
        final = self.path / version
        temporary = self.path / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            temporary.mkdir(parents=True)
            yield temporary
            _sync(temporary)
            if not _is_published(final, temporary):
                shutil.rmtree(final, ignore_errors=True)  # a folder that was never published
                temporary.rename(final)
            self._prune(final)
        except OSError as error:
            raise OutputError(f"weights {final}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _prune(self, newest: Path) -> None:
        """Deletes old versions; leaves folders without weights unchanged.
        `newest`: the version just written, which is kept."""
        versions = [path for path in self.path.iterdir() if _holds_weights(path) and path != newest]
        versions.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        marks = [(path / _PUBLISHED).exists() for path in versions]
        latest = marks.index(True) if any(marks) else len(versions)
        published = [path for path, mark in zip(versions, marks, strict=True) if mark]
        # Versions after the latest published one were not confirmed, or not marked; the fleet may serve them.
        stay = {*versions[:latest][: self._keep - 1], *published[: self._keep - 1]}
        for old in set(versions) - stay:
            shutil.rmtree(old, ignore_errors=True)


def _is_published(version: Path, again: Path) -> bool:
    """Whether this version was published before, with the files of `again`. Raises InputError if the files differ."""
    if not (version / _PUBLISHED).exists():
        return False
    names = [path.name for path in again.iterdir()]
    same, _, _ = filecmp.cmpfiles(version, again, names, shallow=False)
    if len(same) < len(names):
        raise InputError(
            f"version {version.name}: {version} was published with other weights, which workers may have to load "
            "again; give these another name"
        )
    return True


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors")) or (folder / TENSORS).exists()


def adapter_of(model: Any, name: str | None) -> AdapterSpec | None:
    """Returns the `adapter` field for the publish of a model; None for whole weights. `name`: the adapter's name in
    batches.

    Raises InputError for a model with an adapter if no name is given, because its saved folder has no whole weights,
    and for a name if the model has no adapter.
    """
    has_adapter = bool(getattr(model, "peft_config", None))
    if has_adapter and name is None:
        raise InputError(
            "adapter: missing, and the model has a LoRA adapter; give it a name, or merge it into the model"
        )
    if name is not None and not has_adapter:
        raise InputError(f"adapter: found {name}, and the model has none; wrap it by peft.get_peft_model")
    return None if name is None else AdapterSpec(name=name)


def source_of(folder: Path) -> Source:
    """Returns the source of a saved version.
    That of an adapter has a digest, so that its publish needs no running worker."""
    if not (folder / TENSORS).exists():
        return Source(path=str(folder))
    return Source(path=str(folder), digest=version_digest(_file_digest(folder, name) for name in (CONFIG, TENSORS)))


def _file_digest(folder: Path, name: str) -> FileDigest:
    with (folder / name).open("rb") as file:
        pieces = tuple(sha256(piece).digest() for piece in iter(lambda: file.read(PIECE_BYTES), b""))
        return FileDigest(name, file.tell(), pieces)


def canary(model: Any, token_ids: Sequence[int] | None = None, *, tolerance: float | None = None) -> Canary:
    """Computes a canary: the model's log-probabilities of a sequence, with which each worker compares its own after it
    has loaded the weights.

    `token_ids`: default is a fixed sequence of ids below 256; a prompt with its response is a stronger check. No
    temperature is applied. `tolerance`: as in Canary.
    """
    ids = list(token_ids) if token_ids is not None else _mixed_ids(int(model.config.get_text_config().vocab_size))
    training = bool(model.training)
    model.eval()
    try:
        with torch.no_grad():
            device = next(iter(model.parameters())).device
            logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, :-1].float()
            chosen = torch.tensor(ids[1:], device=logits.device).unsqueeze(-1)
            values = logits.log_softmax(-1).gather(-1, chosen).squeeze(-1)
    finally:
        model.train(training)
    return Canary(token_ids=ids, logprobs=[float(value) for value in values], tolerance=tolerance)


def publish(
    client: Client,
    folder: WeightsFolder,
    model: Any,
    version: str,
    *,
    canary_ids: Sequence[int] | None = None,
    mode: PublishMode = "drain",
    max_staleness: int | None = None,
    deadlines: Deadlines | None = None,
    progress: Callable[[Transaction], None] | None = None,
    adapter: str | None = None,
) -> Transaction:
    """Saves the model, publishes it with a canary, and returns when every worker has confirmed it.

    `canary_ids`: the canary's tokens; `mode`, `max_staleness`: treatment of responses that run meanwhile, as in
    Publish. `adapter`: the name of a PEFT model's adapter; only the adapter is published, for the served weights on
    which it was trained. Raises WeightsError with the workers that have not confirmed; the fleet then serves the
    previous version.
    """
    is_adapter = adapter_of(model, adapter)
    proof = canary(model, canary_ids)
    path = folder.save(model, version)
    what = Publish(
        version=version,
        source=source_of(path),
        mode=mode,
        max_staleness=max_staleness,
        canary=proof,
        deadlines=deadlines or Deadlines(),
        adapter=is_adapter,
    )
    transaction = client.publish(what, progress=progress)
    folder.note_published(version)
    return transaction


def _mixed_ids(vocabulary: int, length: int = 32) -> list[int]:
    # Small ids, which every vocabulary has.
    size = min(vocabulary, 256)
    return [(11 + 37 * position + 5 * position * position) % size for position in range(length)]


class Shards:
    """Writes tensors to safetensors files with an index, with the file names of transformers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, torch.Tensor] = {}
        self._held = 0
        self._placed: dict[str, str] = {}
        self._count = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Adds a copy of a tensor, so the tensor may change afterwards."""
        copy = tensor.detach().to("cpu", copy=True).contiguous()
        self._tensors[name] = copy
        self._held += copy.nbytes
        if self._held >= SHARD_BYTES:
            self._save()

    def finish(self) -> None:
        """Writes the remaining tensors and, if there are several files, the index."""
        if self._tensors or not self._count:
            self._save()
        if self._count == 1:
            (self._folder / _shard_name(1)).rename(self._folder / _WHOLE)
            return
        index = json.dumps({"metadata": {}, "weight_map": self._placed})
        (self._folder / f"{_WHOLE}.index.json").write_text(index, encoding="utf-8")

    def _save(self) -> None:
        self._count += 1
        save_file(self._tensors, self._folder / _shard_name(self._count), metadata={"format": "pt"})
        self._placed |= dict.fromkeys(self._tensors, _shard_name(self._count))
        self._tensors, self._held = {}, 0


def _shard_name(number: int) -> str:
    return f"model-{number:05d}.safetensors"


def _sync(folder: Path) -> None:
    """Flushes the files to the disk, because other nodes read them as soon as the version is published."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
