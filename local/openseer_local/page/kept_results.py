"""Reads single results of a run folder from results.jsonl when a view needs them."""

from collections.abc import Sequence

import msgspec

from openseer_api.http.problems import ConflictProblem
from openseer_core.ids import GroupId
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine

_Signature = tuple[int, int, int]
"""Inode, size in bytes, and time of the last write in nanoseconds."""


class KeptResults:
    """Index of results.jsonl: the byte offset of each result. A file that has changed since is not read, because the
    offsets may be wrong."""

    def __init__(self, folder: RunFolder) -> None:
        """Reads the offsets. Raises InputError for a line that is not a result."""
        self._path = folder.results_file
        self._signature = self._signed()
        self._places: dict[tuple[int, str], dict[int, int]] = {}
        """Byte offset of each result, by group and index."""
        place = 0
        for key, size in folder.sized_keys():
            self._places.setdefault((key.batch, key.group), {})[key.index] = place
            place += size

    def indices(self, group: GroupId) -> list[int]:
        """Returns the sorted indices of a group's responses that have a result."""
        return sorted(self._places.get((group.batch, group.name), ()))

    def read(self, group: GroupId, indices: Sequence[int]) -> list[ResultLine]:
        """Reads results of a group. Raises ConflictProblem if the file has changed since this object was created."""
        lines: list[bytes] = []
        try:
            with self._path.open("rb") as file:
                for index in indices:
                    file.seek(self._places[group.batch, group.name][index])
                    lines.append(file.readline())
            unchanged = self._signed() == self._signature
        except OSError:
            unchanged = False
        if not unchanged:
            raise ConflictProblem(
                f"{self._path} has changed since it was opened here: the run continues or was started anew; start "
                "openseer view again after its end"
            )
        return [msgspec.json.decode(line, type=ResultLine) for line in lines]

    def _signed(self) -> _Signature | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
