"""Downloads a prompt file from a URL to a temporary file, with a size limit and retries."""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from tempfile import NamedTemporaryFile
from typing import IO

from openseer_core.errors import PromptsError

FETCH_BYTES = 64 << 30
"""Limit of a file's size, in bytes."""
FETCH_TRIES = 5
RETRY_SECONDS = 1.0
"""Wait after the first failed try, in seconds; doubled after each further failed try."""
STALL_SECONDS = 60.0
"""Timeout of a read from the server, in seconds."""
PIECE_BYTES = 1 << 20

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the download is tried again."""


class _TooLargeError(ValueError):
    """The file exceeds the size limit."""


def fetched(url: str, note: Callable[[str], None], limit: int = FETCH_BYTES) -> IO[bytes]:
    """Downloads a file into the folder for temporary files and returns it open; closing the file deletes it.

    `note`: called with the progress as text. `limit`: largest size, in bytes. Raises PromptsError.
    """
    file = NamedTemporaryFile(prefix="openseer-prompts-")  # noqa: SIM115 - the caller holds it
    pause = RETRY_SECONDS
    for tries in range(1, FETCH_TRIES + 1):
        try:
            _fetch(url, file, note, limit)
            return file
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if tries == FETCH_TRIES or not _may_pass(error):
                file.close()
                after = f" after {tries} tries" if tries > 1 else ""
                problem = f"spec.prompts.url: {url} cannot be fetched{after}: {error or type(error).__name__}"
                raise PromptsError(url, [problem]) from error
            note(f"try {tries} failed ({error}); the next one in {pause:.0f} s")
        time.sleep(pause)
        pause *= 2
    raise AssertionError


def _fetch(url: str, file: IO[bytes], note: Callable[[str], None], limit: int) -> None:
    file.seek(0)
    file.truncate()
    size = 0
    with urllib.request.urlopen(url, timeout=STALL_SECONDS) as answer:
        stated = answer.headers.get("Content-Length")
        while piece := answer.read(PIECE_BYTES):
            size += len(piece)
            if size > limit:
                raise _TooLargeError(f"found more than {limit:,} bytes, which is the limit; give a file on a volume")
            file.write(piece)
            note(f"fetched {size >> 20:,} MiB")
    file.flush()
    if stated is not None and stated.isdigit() and size != int(stated):
        raise ConnectionError(f"the answer ended after {size:,} of {int(stated):,} bytes")


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _PASSING
    return isinstance(error, http.client.HTTPException | OSError)
