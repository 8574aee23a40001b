"""The gate before all routes: nothing of a body is read before its sender is known, and no call takes more than its
share of memory and time.
"""

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
"""Of a request's header fields."""
JSON_BYTES = 4 * 2**20
"""Of a body, unless its route takes more."""
GENERATING_BYTES = 64 * 2**20
"""Of a body of the compatible routes that generate: some trainers send all prompts of a step in one call."""
ALL_BYTES = 512 * 2**20
"""Of all bodies whose calls are not answered yet; of an upload of lines what is not queued yet."""
STALL_SECONDS = 30.0
"""Longest wait for the next piece of a body."""
_BATCH = re.compile(r"/v1/batches/(\d{1,16})(?:/|$)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: to a job ("" and "" on a server of one), and within it."""

    namespace: str
    job: str
    path: str


class Paths(Protocol):
    """What the gate has to know of paths. `health`: those within a job that, without a token, tell of the process and
    not of the job; `ready`: the open path that does."""

    health: frozenset[str]
    ready: str

    def is_open(self, path: str) -> bool:
        """Whether the path needs no token here: it tells of no job, or looks itself who asks."""
        ...

    def place(self, path: str) -> Place | None:
        """None for a path outside every job."""
        ...

    def shape(self, path: str) -> Shape:
        """How errors look at this path within a job."""
        ...

    def body_bytes(self, path: str) -> int | None:
        """Longest body at this path within a job; None where the route itself limits it."""
        ...


class Held:
    """Bytes that one call's body has in memory. `everyone`: of the bodies of all open calls."""

    def __init__(self, everyone: "Held | None" = None) -> None:
        self._everyone = everyone
        self.bytes = 0

    def keep(self, count: int) -> None:
        """So many bytes are in memory now. Raises HTTPException where all together become too many."""
        more, self.bytes = count - self.bytes, count
        if self._everyone is None:
            return
        self._everyone.keep(self._everyone.bytes + more)
        if more > 0 and self._everyone.bytes > ALL_BYTES:
            text = f"the bodies of open calls have {ALL_BYTES} bytes already"
            raise HTTPException(429, text, {"Retry-After": str(RETRY_SECONDS)})


Admit = Callable[[str, Headers, Place, str], Awaitable[object]]
"""From method, header fields, place and the caller's address ("" where it has none) to the job's context. Raises
OpenseerError for whoever has no right to it."""


class Gate:
    """Lets a call in once its head is checked and its token allows it, then counts and times the pieces of its body.

    The state of an admitted call has `job`, what `admit` returned, and `held`, which a route that reads its body piece
    by piece tells what it keeps; that of every call has `shape`, how its errors look.
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
                    raise NotFoundProblem("the path names no job")
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
        """The call goes on, with a body that ends in an HTTPException where it breaks a limit."""
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
                text = f"nothing came of the body for {STALL_SECONDS:g} s"
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
    """Raises HTTPException."""
    if sum(len(name) + len(value) for name, value in headers.raw) > HEAD_BYTES:
        raise HTTPException(431, f"header fields may have {HEAD_BYTES} bytes")


def _check_body(headers: Headers, limit: int | None) -> None:
    """What the head says of the body. Raises HTTPException."""
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        text = f"Content-Encoding: found {encoding[:40]}, allowed: none; send the body as it is"
        raise HTTPException(415, text, {"Accept-Encoding": "identity"})
    length = headers.get("content-length", "0")
    if limit is not None and length.isdecimal() and int(length[:20]) > limit:
        raise _too_large(limit)
