"""How much one answer of a store may hold. The store may be anybody's: operator and gateway read those of all jobs."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false
import asyncio
import re
from dataclasses import dataclass

import redis.exceptions


@dataclass(frozen=True, slots=True)
class ReplyLimit:
    """Most bytes of one answer: what a reading verb gives, and one more response, of two million tokens or the longest
    scores (core's MOST_SCORE_BYTES), with its prompt; and most elements over all lists in it, for the parser makes room
    for as many as a list says that it has."""

    bytes: int = 32 * 2**20
    parts: int = 2**19


USUAL_LIMIT = ReplyLimit()

LINE_BYTES = 2**14
"""Longest line: a number, the length of what follows, or a refusal's text."""
_COUNT = re.compile(rb"-1|[0-9]{1,18}")
_WHOLE = re.compile(rb":[+-]?[0-9]{1,19}")


UNFIT = "does not speak as Redis does"
"""Of a server whose answers have another shape, or mean nothing."""


class UnfitReplyError(redis.exceptions.RedisError):
    """The server's answers are not those of a store."""


class BoundedReader:
    """What a connection's parser reads from: it follows the shape of each answer before the parser sees it."""

    def __init__(self, stream: asyncio.StreamReader, limit: ReplyLimit) -> None:
        self._stream = stream
        self._limit = limit
        self._line = b""
        self._skip = 0
        self._bytes = 0
        self._parts = 0

    def begin(self) -> None:
        """The next answer may be as long as any."""
        self._bytes = self._parts = 0

    async def read(self, most: int) -> bytes:
        """At most so many bytes, once there are any. Raises UnfitReplyError."""
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
        """One line of an answer, in the older of Redis' two protocols."""
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
    return UnfitReplyError(f"answers with {found}; no store of openseer's does")
