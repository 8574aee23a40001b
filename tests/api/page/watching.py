"""A person at the page: a browser's cookie jar, and the views of a stream."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.api.served import TOKEN, Served


class Viewer:
    """A viewer who logged in with a token; `None`: one who did not."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def login(self, token: str) -> int:
        """Logs in with a token and returns the status."""
        return (await self.http.post("/page/login", json={"token": token})).status_code

    async def status(self, path: str) -> int:
        """The status of a stream's answer."""
        async with self.http.stream("GET", f"/page/api{path}") as answer:
            return answer.status_code

    async def views(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events of a stream, by kind."""
        async with self.http.stream("GET", f"/page/api{path}") as answer:
            assert answer.status_code == 200, answer.status_code
            kind = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))

    async def first(self, path: str) -> dict[str, Any]:
        """The first view of a stream."""
        async for kind, data in self.views(path):
            assert kind == "view", data
            return data
        raise AssertionError("the stream ended without a view")

    async def until(self, path: str, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first view for which `holds` is true."""
        latest: dict[str, Any] = {}
        async for kind, data in self.views(path):
            assert kind in ("view", "pulse"), data
            latest = latest | data
            if is_so(latest):
                return latest
        raise AssertionError("the stream ended first")


@asynccontextmanager
async def viewer(served: Served, token: str | None = TOKEN) -> AsyncGenerator[Viewer]:
    """A browser that has logged in with a token, or has not."""
    async with served.client(None) as http:
        found = Viewer(http)
        if token is not None:
            assert await found.login(token) == 204
        yield found
