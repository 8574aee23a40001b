"""Converts a call into HTTP requests, with headers, timeouts and retries. The two clients only send and sleep."""

import logging
import random
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import httpx

from openseer_client.http import calls, retry
from openseer_client.http.calls import Call
from openseer_client.http.flows import Pause
from openseer_client.http.retry import Limits, Trouble
from openseer_client.settings import Credentials

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
CONNECT_SECONDS = 10.0
"""Timeout of a connection, in seconds."""


@dataclass(frozen=True, slots=True)
class Send:
    """A request to send. The client sends its response into the generator, or throws an httpx.TransportError."""

    request: httpx.Request


class Exchange:
    """Makes calls to one API with one token.
    `timeout`: limit of the time without a byte, in seconds, in addition to the wait of a long poll."""

    def __init__(self, base_url: str, credentials: Credentials, limits: Limits, timeout: float) -> None:
        self.base_url = base_url
        self._credentials = credentials
        self._limits = limits
        self._timeout = timeout

    def run(self, call: Call[T]) -> Generator[Send | Pause, httpx.Response, T]:
        """Makes the call, with retries within the limits, and returns its result. Raises ApiError."""
        tries = _Tries(self._limits, call)
        renewed = False
        while True:
            try:
                response = yield Send(self._request(call, renewed=renewed))
            except httpx.TransportError as error:
                why = f"{self.base_url}: {type(error).__name__}: {error}"
                seconds = tries.again(Trouble.UNREACHABLE, None, why)
                if seconds is None:
                    raise calls.unreachable(call, why) from error
                yield Pause(seconds)
                continue
            if response.status_code == 401 and self._credentials.rotates and not renewed:
                renewed = True
                continue
            if response.status_code in (404, 410) and call.gone_is_done:
                return call.answer(204, b"")
            trouble = retry.trouble_of(response.status_code)
            seconds = None
            if trouble is not None:
                asked = retry.retry_after(response.headers.get("Retry-After"))
                seconds = tries.again(trouble, asked, f"HTTP {response.status_code}")
            if seconds is None:
                return call.answer(response.status_code, response.content)
            yield Pause(seconds)

    def _request(self, call: Call[T], *, renewed: bool) -> httpx.Request:
        patience = self._timeout + call.wait_seconds
        timeout = httpx.Timeout(patience, connect=CONNECT_SECONDS)
        return httpx.Request(
            call.method,
            self.base_url + call.path,
            params=call.query or None,
            content=call.body,
            headers={"Accept": "application/json", **call.headers, **self._credentials.headers(again=renewed)},
            extensions={"timeout": timeout.as_dict()},
        )


class _Tries:
    """Counts the consecutive failures of one call; a failure of another kind begins a new count."""

    def __init__(self, limits: Limits, call: Call[T]) -> None:
        self._limits = limits
        self._call = str(call)
        self._trouble: Trouble | None = None
        self._failures = 0
        self._since = 0.0

    def again(self, trouble: Trouble, asked: float | None, why: str) -> float | None:
        """Returns the seconds until the next try; None if the limit is reached."""
        now = time.monotonic()
        if trouble is not self._trouble:
            self._trouble, self._failures, self._since = trouble, 0, now
        self._failures += 1
        seconds = retry.delay(
            self._limits,
            trouble,
            failures=self._failures,
            elapsed=now - self._since,
            asked=asked,
            draw=random.random(),
        )
        if seconds is not None:
            _LOG.info("%s: %s; again in %.1f s", self._call, why, seconds)
        return seconds
