"""The gate before all routes: it authorizes a call before it reads the body, and limits the body's memory and time."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openseer_api.http.problems import RETRY_SECONDS, NotFoundProblem, Shape, fault_of
from openseer_core.errors import OpenseerError
from openseer_core.traces.traceparent import TraceParent
from openseer_process.logs import about

HEAD_BYTES = 64 * 2**10
"""Limit of a request's header fields, in bytes."""
JSON_BYTES = 4 * 2**20
"""Limit of a body, in bytes, for routes without a limit of their own."""
GENERATING_BYTES = 64 * 2**20
"""Limit of a body of generating compatible routes, in bytes: some trainers send a step's prompts in one call."""
ALL_BYTES = 512 * 2**20
"""Limit of the sum of the bodies of all open calls, in bytes.
Of an upload of lines only the part that is not queued yet counts."""
STALL_SECONDS = 30.0
"""Timeout of the next piece of a body, in seconds."""
_BATCH = re.compile(r"/v1/batches/(\d{1,16})(?:/|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of a path: its job ("" and "" on a server of one job), and the path within the job."""

    namespace: str
    job: str
    path: str


class Paths(Protocol):
    """Classifies paths for the gate. `health`: paths within a job that the route at the open path `ready` serves if the
    call has no token, so that it returns the process's health and not the job's."""

    health: frozenset[str]
    ready: str

    def is_open(self, path: str) -> bool:
        """Whether the gate requires no token for the path: it shows no job, or its route checks the caller."""
        ...

    def place(self, path: str) -> Place | None:
        """Returns the parts of a path; None for a path outside all jobs."""
        ...

    def shape(self, path: str) -> Shape:
        """Returns the shape of errors at this path within a job."""
        ...

    def body_bytes(self, path: str) -> int | None:
        """Returns the limit of a body at this path within a job, in bytes; None if the route itself limits it."""
        ...


class Held:
    """Counts the bytes in memory of one call's body. `everyone`: the count of all open calls."""

    def __init__(self, everyone: "Held | None" = None) -> None:
        self._everyone = everyone
        self.bytes = 0

    def keep(self, count: int) -> None:
        """Sets the count to `count` bytes.
        Raises HTTPException if it grows and the sum of all calls exceeds ALL_BYTES."""
        more, self.bytes = count - self.bytes, count
        if self._everyone is None:
            return
        self._everyone.keep(self._everyone.bytes + more)
        if more > 0 and self._everyone.bytes > ALL_BYTES:
            text = f"the bodies of open calls have reached their limit, {ALL_BYTES} bytes"
            raise HTTPException(429, text, {"Retry-After": str(RETRY_SECONDS)})


Admit = Callable[[str, Headers, Place, str], Awaitable[object]]
"""Maps method, header fields, place and the caller's address ("" if it has none) to the job's context. Raises
OpenseerError for a caller without the right to it."""


class Gate:
    """Checks the head and the token of each call, then limits the size and the time of its body.

    The state of an admitted call has `job`, the value of `admit`, and `held`, the Held of its body: a route that reads
    the body in pieces sets the number of bytes that it keeps. The state of every call has `shape`, the shape of its
    errors.
    """

    def __init__(self, app: ASGIApp, paths: Paths, admit: Admit) -> None:
        self._app = app
        self._paths = paths
        self._admit = admit
        self._held = Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, place = Headers(scope=scope), self._paths.place(scope["path"])
        state = scope.setdefault("state", {})
        state["shape"] = self._paths.shape(place.path if place is not None else scope["path"])
        if place is not None and place.path in self._paths.health and "authorization" not in headers:
            scope = {**scope, "path": self._paths.ready, "raw_path": self._paths.ready.encode()}
            place = self._paths.place(scope["path"])
        open_ = self._paths.is_open(scope["path"])
        path = place.path if place is not None else scope["path"]
        try:
            _check_head(headers)
            if not open_:
                if place is None:
                    raise NotFoundProblem("the path contains no job; a job's routes are below /jobs/NAMESPACE/NAME")
                client = scope.get("client")
                state["job"] = await self._admit(scope["method"], headers, place, client[0] if client else "")
            limit = self._paths.body_bytes(path)
            _check_body(headers, limit)
        except (OpenseerError, HTTPException) as error:
            await state["shape"](fault_of(error))(scope, receive, send)
            return
        batch, caller = _BATCH.match(path), TraceParent.parse(headers.get("traceparent"))
        with about(
            job=f"{place.namespace}/{place.job}" if place is not None and place.job else "",
            batch=batch[1] if batch is not None else "",
            trace_id=f"{caller.trace_id:032x}" if caller is not None else "",
        ):
            await self._pass(scope, receive, send, limit)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, limit: int | None) -> None:
        """Calls the application with a body whose reads raise HTTPException beyond a limit of size or time."""
        whole, begun, total = False, False, 0
        held = scope["state"]["held"] = Held(self._held)

        async def received() -> Message:
            nonlocal whole, total
            if whole:
                return await receive()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    message = await receive()
            except TimeoutError:
                if begun:
                    return {"type": "http.disconnect"}
                text = f"no piece of the body arrived within {STALL_SECONDS:g} s"
                raise HTTPException(408, text, {"Connection": "close"}) from None
            whole = not message.get("more_body", False)
            total += len(message.get("body", b""))
            if limit is not None and total > limit:
                raise _too_large(limit)
            held.keep(held.bytes + len(message.get("body", b"")))
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, received, noted)
        finally:
            held.keep(0)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body of this call may have {limit} bytes")


def _check_head(headers: Headers) -> None:
    """Raises HTTPException if the header fields are too large."""
    if sum(len(name) + len(value) for name, value in headers.raw) > HEAD_BYTES:
        raise HTTPException(431, f"header fields may have {HEAD_BYTES} bytes")


def _check_body(headers: Headers, limit: int | None) -> None:
    """Checks the header fields that describe the body. Raises HTTPException."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        text = f"Content-Encoding: found {encoding[:40]}, allowed: none; send the body as it is"
        raise HTTPException(415, text, {"Accept-Encoding": "identity"})
    length = headers.get("content-length", "0")
    if limit is not None and length.isdecimal() and int(length[:20]) > limit:
        raise _too_large(limit)
