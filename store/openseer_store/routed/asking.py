"""Requests for rows over HTTP: the gateway of a cluster mounts no job's volume, and asks a pod of the job for rows.

`GET /rows/SECRET/BATCH/GROUP?names=A,B`: files of one group, in one reply; a missing file is empty.
"""

import hashlib
import hmac
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from openseer_core.ids import GroupId
from openseer_store.routed.places import group_folder

ROWS_PORT = 8080
"""Port of the pod that serves rows."""
MOST_FILES = 64
"""Limit of files in one request."""
MOST_BYTES = 256 * 2**20
"""Limit of the files of one reply, in bytes; further files are left out, and their rows count as missing."""
LONGEST_ANSWER = 2 * MOST_BYTES
"""Limit of a reply, in bytes; a file may have grown since its size was read."""
_SIZE = struct.Struct("<Q")
_QUESTION = re.compile(r"/rows/([0-9a-f]{64})/([0-9]{1,16})/([0-9a-f]{24})\?names=([a-z0-9.,]+)")
_NAME = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)+")


def rows_name(job: str) -> str:
    """Name of the pod's StatefulSet and Service for a job."""
    return f"{job}-rows"


class Question(NamedTuple):
    """A request for files of a group. `place`: the group's folder within the job's folder."""

    place: Path
    names: tuple[str, ...]


class RowsSecret:
    """The secret in a request, derived from the URL of the job's store: a client that may read the store may read
    rows."""

    def __init__(self, store_url: str) -> None:
        self._text = hashlib.sha256(f"rows of routed experts {store_url.strip()}".encode()).hexdigest()

    def ask(self, group: GroupId, names: Sequence[str]) -> str:
        """The path and query for at most MOST_FILES files of a group."""
        return f"/rows/{self._text}/{group_folder(Path(), group).as_posix()}?names={','.join(names)}"

    def read(self, path: str) -> Question | None:
        """Parses a path and query; None if they are no such request, or contain another secret."""
        found = _QUESTION.fullmatch(path)
        if found is None or not hmac.compare_digest(found[1], self._text):
            return None
        names = tuple(found[4].split(","))
        if len(names) > MOST_FILES or not all(map(_NAME.fullmatch, names)):
            return None
        return Question(Path(found[2], found[3]), names)


def pack_answer(contents: Sequence[bytes]) -> bytes:
    """A reply: the size and the bytes of each file."""
    return b"".join(part for data in contents for part in (_SIZE.pack(len(data)), data))


def unpack_answer(answer: bytes | bytearray, count: int) -> list[memoryview]:
    """The contents of `count` files, not copied. Raises ValueError for a reply that has another number of them."""
    contents: list[memoryview] = []
    whole = memoryview(answer)
    at = 0
    for _ in range(count):
        if at + _SIZE.size > len(answer):
            raise ValueError("an answer with fewer files than were asked for")
        (size,) = _SIZE.unpack_from(answer, at)
        at += _SIZE.size + size
        contents.append(whole[at - size : at])
    if at != len(answer):
        raise ValueError("an answer of another length than its files")
    return contents
