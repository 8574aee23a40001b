"""Writes the routed experts of a batch job's results: one .npy file per result, in the run's routed_experts folder."""

from pathlib import Path

from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Result
from openseer_driver.run_folder import RunFolder
from openseer_driver.run_lines import RoutedLine
from openseer_store.routed.assembly import assemble
from openseer_store.routed.folders import remove_all
from openseer_store.routed.npy import npy
from openseer_store.routed.places import digest


class RoutedFiles:
    """Writes the arrays. `rows`: the job's folder of rows; `run`: the folder of the run."""

    def __init__(self, rows: Path, run: RunFolder) -> None:
        self.rows = rows
        self._run = run

    @staticmethod
    def begin(rows: Path, run: RunFolder, *, fresh: bool) -> "RoutedFiles":
        """Starts a session. `fresh`: it is the run's first and deletes rows of another run of the same name."""
        if fresh:
            remove_all(rows)
        return RoutedFiles(rows, run)

    def write(self, result: Result) -> RoutedLine | None:
        """Writes the array of a result and returns the entry for its line in results.jsonl.

        Returns None for a result that scores given tokens. Raises OutputError.
        """
        if parse_sampling(result.sampling).score_from is not None:
            return None
        found, request = assemble(self.rows, result), result.request
        file = f"{self._run.routed_folder.name}/{request.group.batch}-{digest(request.group.name)}-{request.index}.npy"
        self._run.create(self._run.routed_folder)
        self._run.write_whole(self._run.path / file, npy(found))
        dtype = found.shape.dtype if found.shape is not None else "uint8"
        return RoutedLine(file, 0, list(found.array_shape), dtype, found.gaps, list(found.missing))
