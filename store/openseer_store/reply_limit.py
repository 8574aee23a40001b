"""Limits of one reply of an untrusted store: operator and gateway read the stores of all jobs."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false
import asyncio
import re
from dataclasses import dataclass

import redis.exceptions


@dataclass(frozen=True, slots=True)
class ReplyLimit:
    """Limits of one reply. `bytes`: enough for a reading verb's own limit plus one response with its prompt: two
    million tokens, or scores of core's MOST_SCORE_BYTES. `parts`: total length of all lists of the reply, because the
    parser allocates a list in the length that the server announces."""

    bytes: int = 32 * 2**20
    parts: int = 2**19


USUAL_LIMIT = ReplyLimit()

LINE_BYTES = 2**14
"""Limit of a line, in bytes: a number, a length, or the text of an error."""
_COUNT = re.compile(rb"-1|[0-9]{1,18}")
_WHOLE = re.compile(rb":[+-]?[0-9]{1,19}")


UNFIT = "does not follow the protocol of Redis"
"""The message about a server whose replies have an unexpected type or content."""


class UnfitReplyError(redis.exceptions.RedisError):
    """A reply of the server has an unexpected structure, type or length."""


class BoundedReader:
    """The input stream of a connection's parser: it checks the structure of each reply before the parser reads it."""

    def __init__(self, stream: asyncio.StreamReader, limit: ReplyLimit) -> None:
        self._stream = stream
        self._limit = limit
        self._line = b""
        self._skip = 0
        self._bytes = 0
        self._parts = 0

    def begin(self) -> None:
        """Begins the count for the next reply."""
        self._bytes = self._parts = 0

    async def read(self, most: int) -> bytes:
        """At most `most` bytes, after waiting for the first. Raises UnfitReplyError."""
        data = await self._stream.read(most)
        self._bytes += len(data)
        if self._bytes > self._limit.bytes:
            raise _too_long(f"more than {self._limit.bytes} bytes")
        self._follow(self._line + data if self._line else data)
        return data

    def _follow(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                position += step
                self._skip -= step
                continue
            end = data.find(b"\r\n", position)
            if (end if end >= 0 else len(data)) - position > LINE_BYTES:
                raise _too_long(f"a line of more than {LINE_BYTES} bytes")
            if end < 0:
                break
            self._note(data[position:end])
            position = end + 2
        self._line = data[position:]

    def _note(self, line: bytes) -> None:
        """Checks one line of a reply in Redis protocol version 2."""
        kind, rest = line[:1], line[1:]
        if kind in (b"+", b"-") or _WHOLE.fullmatch(line):
            return
        if kind not in (b"$", b"*") or not _COUNT.fullmatch(rest):
            raise UnfitReplyError(UNFIT)
        count = int(rest)
        if kind == b"*":
            self._parts += max(0, count)
            if self._parts > self._limit.parts:
                raise _too_long(f"more than {self._limit.parts} elements")
        elif count > self._limit.bytes:
            raise _too_long(f"more than {self._limit.bytes} bytes")
        elif count >= 0:
            self._skip = count + len(b"\r\n")


def _too_long(found: str) -> UnfitReplyError:
    return UnfitReplyError(f"answers with {found}, unlike every store of openseer")
