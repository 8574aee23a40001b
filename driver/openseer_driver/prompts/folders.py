"""Finds the files of a folder that contain prompts: a saved dataset, the shards of one split, or one file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from openseer_core.errors import JsonError
from openseer_core.strict_json import parse
from openseer_driver.prompts.formats import ALLOWED

# Older versions of `datasets` append a hash to the names of shards.
_DATA = re.compile(
    r"(?P<name>.+?)(-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?)?"
    r"\.(?P<suffix>parquet|arrow|jsonl?(\.gz)?)"
)
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_NO_DATA = frozenset({_STATE, _SPLITS, "dataset_info.json", "dataset_infos.json"})
_REORDERED = ("_indices_files", "_indices_data_files")
"""Keys of state.json in which older versions of `datasets` name files that select or reorder the rows."""
_SHOWN = 8
"""Limit of names that a message lists."""


class FolderError(ValueError):
    """The prompt files of a folder cannot be determined."""


def files_at(path: Path) -> list[Path]:
    """The files to read, in order: the path itself, the files of a folder, or the shards of a split `folder/split`.

    The shards of a saved dataset are in the order of its state.json, other shards in the order of their numbers. Raises
    FolderError, OSError.
    """
    if path.is_dir():
        return _files_in(path)
    if path.exists() or not path.parent.is_dir():
        return [path]
    split = {name: match for name, match in _data(path.parent) if match["name"] == path.name}
    return _shards(path.parent, split) if split else [path]


def _files_in(folder: Path) -> list[Path]:
    if (folder / _STATE).is_file():
        return _saved(folder)
    if (folder / _SPLITS).is_file():
        raise _several(folder, _texts(_document(folder / _SPLITS).get("splits")))
    found = dict(_data(folder))
    if not found:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        inside = [f"{folder}/{name}" for name in names if (folder / name).is_dir()]
        hint = f"; a folder in it may be meant: {_listed(inside)}" if inside else ""
        raise FolderError(f"found a folder with {_listed(names) or 'nothing in it'}, allowed: {ALLOWED}{hint}")
    splits = sorted({match["name"] for match in found.values()})
    if len(splits) > 1:
        raise _several(folder, splits)
    return _shards(folder, found)


def _saved(folder: Path) -> list[Path]:
    """The files of a dataset that the library `datasets` saved, in order."""
    state = _document(folder / _STATE)
    if any(state.get(name) for name in _REORDERED):
        raise FolderError("found a dataset whose rows are picked by an index; save it again (flatten_indices)")
    entries = state.get("_data_files")
    files = cast("list[Any]", entries) if isinstance(entries, list) else []
    names = _texts([entry.get("filename") if isinstance(entry, dict) else None for entry in files])
    if not names:
        raise FolderError(f"{_STATE} lists no files under _data_files; save the dataset again")
    return [folder / name for name in names]


def _data(folder: Path) -> list[tuple[str, re.Match[str]]]:
    """Names of the files that may contain prompts, sorted, each with its match of _DATA."""
    names = sorted(path.name for path in folder.iterdir() if not (path.name.startswith(".") or path.is_dir()))
    return [(name, match) for name in names if name not in _NO_DATA and (match := _DATA.fullmatch(name))]


def _shards(folder: Path, found: dict[str, re.Match[str]]) -> list[Path]:
    """The path of the one file, or the paths of all shards of one split. Raises FolderError for other files."""
    shards = list(found.values())
    if len(shards) == 1 and not shards[0]["number"]:
        return [folder / name for name in found]
    if len({(shard["suffix"], shard["count"]) for shard in shards}) > 1 or not shards[0]["count"]:
        raise FolderError(f"found {_listed(list(found))}, allowed: one file, or the shards of one split; name a file")
    numbers, count = [int(shard["number"]) for shard in shards], int(shards[0]["count"])
    if numbers != list(range(count)):
        missing = f"{count - len(numbers)} are missing" if len(numbers) < count else "some are there twice"
        raise FolderError(f"found {len(numbers)} of {count} shards of {shards[0]['name']}; {missing}")
    return [folder / name for name in found]


def _several(folder: Path, splits: Sequence[str]) -> FolderError:
    return FolderError(f"found the splits {_listed(splits) or 'of no name'}, allowed: one; give {folder}/SPLIT")


def _document(path: Path) -> dict[str, Any]:
    try:
        value = parse(path.read_bytes())
    except JsonError as error:
        raise FolderError(f"{path.name} cannot be read: {error}") from None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    entries = cast("list[object]", value) if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, str)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
