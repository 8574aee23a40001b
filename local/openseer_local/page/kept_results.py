"""The results of a folder as they were when its page was opened: whole lines, read when somebody asks for them."""

from collections.abc import Sequence

import msgspec

from openseer_api.http.problems import ConflictProblem
from openseer_core.ids import GroupId
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import ResultLine

_Signature = tuple[int, int, int]
"""The file itself, its bytes, and when it was last written."""


class KeptResults:
    """Where each result stands in results.jsonl. A file that was changed since is not read: its places are others."""

    def __init__(self, folder: RunFolder) -> None:
        """Raises InputError for a line that is no result."""
        self._path = folder.results_file
        self._signature = self._signed()
        self._places: dict[tuple[int, str], dict[int, int]] = {}
        """Of each group's results by index, in bytes."""
        place = 0
        for key, size in folder.sized_keys():
            self._places.setdefault((key.batch, key.group), {})[key.index] = place
            place += size

    def indices(self, group: GroupId) -> list[int]:
        """Of which responses of a group there is a result, in order."""
        return sorted(self._places.get((group.batch, group.name), ()))

    def read(self, group: GroupId, indices: Sequence[int]) -> list[ResultLine]:
        """Results of a group. Raises ConflictProblem where the file is no longer the one that was opened."""
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
                f"{self._path} has changed since it was opened here: the run goes on or was started anew; "
                "start openseer view again once it has ended"
            )
        return [msgspec.json.decode(line, type=ResultLine) for line in lines]

    def _signed(self) -> _Signature | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
