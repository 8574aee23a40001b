"""The web server: uvicorn, with additional limits for connections, request heads and stalled clients.

It always uses h11, the only HTTP implementation of uvicorn that limits the size of a request head.
"""

import asyncio
import logging
import re
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from openseer_api.http.gate import HEAD_BYTES
from openseer_api.http.problems import Fault, problem

CONNECTIONS = 8192
"""Limit of open connections, if the process has twice as many file descriptors. A further connection closes the one
that was idle longest; if none is idle, the new one is refused."""
BACKLOG = 2048
"""Limit of connections that wait to be accepted."""
KEEP_ALIVE_SECONDS = 75
"""Timeout of an idle connection, in seconds; longer than most steps of a trainer."""
HEAD_SECONDS = 20.0
"""Timeout of a request head, or of the rest of a body after its response, in seconds."""
TAKE_SECONDS = 30.0
"""Timeout of a client that reads nothing of a pending response, in seconds."""
_ABSOLUTE = re.compile(rb"https?://(?:[^/@]*@)?([^/@]+)(/.*)?", re.IGNORECASE)

log = logging.getLogger(__name__)


class Connection(H11Protocol):
    """A connection of a server with at most `most`. `idle`: the server's idle connections, the longest idle first; all
    connections share this dict."""

    def __init__(self, *args: Any, idle: dict["Connection", None], most: int, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._idle = idle
        self._most = most
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            if not self._idle:
                log.warning("%s connections are open, and none is idle; a new one is refused", self._most)
                transport.abort()
                return
            next(iter(self._idle)).drop()
        self._note()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._take_timer = self._await_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_timer = _stopped(self._take_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._idle.pop(self, None)
        self._head_timer, self._take_timer = _stopped(self._head_timer), _stopped(self._take_timer)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Closes the connection at once; unsent data are lost."""
        self._idle.pop(self, None)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Responds to invalid HTTP with a problem, unless a response has begun."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        text = f"header fields may have {HEAD_BYTES} bytes" if status == 431 else str(error) if error else msg
        answer = problem(Fault(status, text))
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=status, headers=headers, reason=b""),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _note(self) -> None:
        """Updates the idle connections, and starts or stops the timeout of a head or of the rest of a body."""
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        fresh = cycle is None  # None before the first call, although uvicorn's type excludes it
        if not fresh and not cycle.response_complete:
            self._idle.pop(self, None)
            self._head_timer = _stopped(self._head_timer)
            return
        self._idle.setdefault(self)
        coming = fresh or self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])
        if not coming:
            self._head_timer = _stopped(self._head_timer)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.drop)

    def _await_taking(self) -> asyncio.TimerHandle:
        return self.loop.call_later(TAKE_SECONDS, self._check_taking, self.transport.get_write_buffer_size())

    def _check_taking(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._take_timer = self._await_taking()
        else:
            self.drop()


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _affordable(connections: int) -> int:
    """Returns the smaller of `connections` and half of the process's file descriptors; other files need the rest."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections if descriptors == resource.RLIM_INFINITY else max(1, min(connections, descriptors // 2))


def _in_origin_form(app: ASGIApp) -> ASGIApp:
    """Wraps the application: a request target that is a whole URL, as clients send it to a proxy, is replaced by the
    URL's path, and the Host header field by the URL's host (RFC 9112, 3.2.2)."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (found := _ABSOLUTE.fullmatch(scope["raw_path"])):
            host, path = found[1], found[2] or b"/"
            others = [field for field in scope["headers"] if field[0] != b"host"]
            scope = {**scope, "path": unquote(path.decode()), "raw_path": path, "headers": [(b"host", host), *others]}
        await app(scope, receive, send)

    return served


class WebServer(uvicorn.Server):
    """Serves an application until `should_exit`; the caller handles signals.

    `finish_seconds`: time for open responses when the server stops. `on_start`: called when it listens. `connections`:
    limit of open connections, CONNECTIONS by default.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        finish_seconds: int,
        on_start: Callable[[], None] = lambda: None,
        connections: int | None = None,
    ) -> None:
        http: Any = partial(Connection, idle={}, most=_affordable(connections or CONNECTIONS))
        config = uvicorn.Config(
            _in_origin_form(app),
            host=host,
            port=port,
            http=http,
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the caller's address is the connection's; a header field can be forged
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=finish_seconds,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._on_start()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
