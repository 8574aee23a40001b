"""A call that waits while this process stops is answered 503 with Retry-After, instead of the web server's own 500."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openseer_api.http.problems import Fault, shape_of

AGAIN_SECONDS = "1"


class AskAgain:
    """A long poll that the shutdown cancels is answered 503; a stream that has begun is broken off."""

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
            detail = "this process stops; ask again"
            answer = shape_of(scope)(Fault(503, detail, {"Retry-After": AGAIN_SECONDS}))
            await answer(scope, receive, send)
