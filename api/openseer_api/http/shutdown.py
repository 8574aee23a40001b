"""Responds 503 with Retry-After, instead of the web server's 500, to calls that still wait when the process stops."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openseer_api.http.problems import Fault, shape_of

AGAIN_SECONDS = "1"
"""Value of Retry-After, in seconds."""


class AskAgain:
    """A middleware that responds 503 to a long poll which the shutdown cancels; a stream that has begun is closed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if begun or scope["type"] != "http":
                raise
            detail = "this process is stopping; repeat the call"
            answer = shape_of(scope)(Fault(503, detail, {"Retry-After": AGAIN_SECONDS}))
            await answer(scope, receive, send)
