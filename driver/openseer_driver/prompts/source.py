"""A prompt source on this machine: its rows, read in a stream, and its digest."""

import hashlib
import re
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from openseer_core.errors import InputError, PromptsError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.prompt_columns import columns_of
from openseer_core.manifest.prompts import PromptRow
from openseer_core.wording import unreadable
from openseer_driver.prompts.fetch import fetched
from openseer_driver.prompts.folders import FolderError, files_at
from openseer_driver.prompts.formats import FileFormat, RowsError
from openseer_driver.prompts.rows import read_rows, sniff, unit_of

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_ALLOWED = "; allowed: an existing file or folder of prompts"


class PromptSource:
    """A prompt source. It may be read several times; its rows are not kept in memory. `name`: its name in messages."""

    def __init__(
        self, name: str, path: Path, held: IO[bytes] | None = None, columns: Collection[str] | None = None
    ) -> None:
        """`path`: a file, a folder, or a split in a folder. `held`: the open temporary file at `path`, which is deleted
        with the source. `columns`: columns of tables to read, as in spec.prompts.fields; None: all.

        Raises PromptsError if there is no file with prompts at `path`.
        """
        self.name = name
        self._held = held
        self._columns = columns
        with self._read_errors():
            self._files = files_at(path)
        # A split, FOLDER/SPLIT, is no folder itself: its files are in its parent.
        self._folder = None if self._files == [path] else Path(name) if path.is_dir() else Path(name).parent
        self._formats: list[FileFormat] = [self._sniffed(file) for file in self._files]

    def rows(self) -> Iterator[PromptRow]:
        """All rows in order. Raises PromptsError."""
        number = 0
        for path, file_format in zip(self._files, self._formats, strict=True):
            name, unit = self._name_of(path), unit_of(file_format)
            with self._read_errors(name):
                for index, content in enumerate(read_rows(path, file_format, self._columns), start=1):
                    number += 1
                    yield PromptRow(number, f"{name} {unit} {index}", content)

    def digest(self) -> str:
        """SHA-256 of the source's present content, in hex. For a folder: SHA-256 of the list of its files' digests and
        names. Raises PromptsError.
        """
        digests: list[str] = []
        for path in self._files:
            with self._read_errors(self._name_of(path)), path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        if self._folder is None:
            return digests[0]
        listing = "".join(f"{digest}  {path.name}\n" for digest, path in zip(digests, self._files, strict=True))
        return hashlib.sha256(listing.encode()).hexdigest()

    @contextmanager
    def unchanged(self, sha256: str) -> Generator[None]:
        """Guards a block that reads the source. Raises PromptsError at the end of the block if the digest is no longer
        `sha256`, also in place of a PromptsError of the block."""
        try:
            yield
        except PromptsError:
            self._require(sha256)
            raise
        self._require(sha256)

    def _require(self, sha256: str) -> None:
        if self.digest() != sha256:
            problem = f"{self.name}: changed while it was read; start again when no process writes to it"
            raise PromptsError(self.name, [problem])

    def _sniffed(self, path: Path) -> FileFormat:
        with self._read_errors(self._name_of(path)):
            return sniff(path)

    def _name_of(self, path: Path) -> str:
        return self.name if self._folder is None else str(self._folder / path.name)

    @contextmanager
    def _read_errors(self, name: str = "") -> Generator[None]:
        """Converts errors of reading to PromptsError, with the name of the source or of one of its files."""
        name = name or self.name
        try:
            yield
        except OSError as error:
            raise PromptsError(self.name, [f"{name} {unreadable(error, Path.cwd)}"]) from error
        except (RowsError, FolderError) as error:
            raise PromptsError(self.name, [f"{name}: {error}"]) from error


def open_source(
    job: RolloutJob, mounted: Path | None = None, *, note: Callable[[str], None] = lambda _: None
) -> PromptSource:
    """The prompt source of a job. `mounted`: its path in a pod, if it is on a volume. `note`: called with the progress
    of a download.

    Raises PromptsError; InputError for a serving job, and for a source that exists only in a cluster.
    """
    prompts = job.spec.prompts
    if prompts is None:
        raise InputError("spec.prompts: missing; a serving job gets its prompts through the API")
    columns = columns_of(prompts.fields) if prompts.fields is not None else None
    if mounted is not None:
        return _local("spec.prompts", str(mounted), columns)
    if prompts.path is not None:
        return _local("spec.prompts.path", prompts.path, columns)
    if prompts.url is not None:
        file = fetched(prompts.url, note)
        return PromptSource(prompts.url, Path(file.name), file, columns)
    raise InputError(
        "spec.prompts: pvc and configMap exist only in Kubernetes; on one machine give path or url; for a cluster "
        "kubectl apply --dry-run=server checks the manifest"
    )


def _local(field: str, name: str, columns: Collection[str] | None) -> PromptSource:
    path = Path(name)
    try:
        with suppress(FolderError):  # PromptSource raises this error
            if files_at(path) == [path]:
                path.stat()
    except OSError as error:
        where = f"working directory: {Path.cwd()}"
        hint = (_hub_hint(name) or _ALLOWED) if isinstance(error, FileNotFoundError) else ""
        raise PromptsError(name, [f"{field}: {name} cannot be read: {error.strerror} ({where}){hint}"]) from error
    return PromptSource(name, path, columns=columns)


def _hub_hint(name: str) -> str:
    """The advice if `name` may be the name of a dataset on a hub; "" otherwise."""
    if not _HUB_NAME.fullmatch(name) or Path(name).suffix or Path(name).parent.is_dir():
        return ""
    folder = Path(name).name
    return (
        f"; no dataset is fetched from a hub: hf download --repo-type dataset {name} --local-dir {folder}, then give "
        f"{folder}, or a folder in it"
    )
