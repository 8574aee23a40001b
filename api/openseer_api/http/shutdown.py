"""Answers a call that waits while the process stops with 503 and Retry-After, instead of the web server's 500."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openseer_api.http.problems import Fault, shape_of

AGAIN_SECONDS = "1"


class AskAgain:
    """Answers a long poll that the shutdown cancels with 503; a stream that has begun is closed."""

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
