"""The limit of a request's body, enforced before anything of it is parsed."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openseer_api.http.problems import problem_response

MOST_BYTES = 4 * 2**20
"""Of every call but uploads of groups, which stream and have limits of their own."""


class _TooMuchError(Exception):
    """The body goes on past the limit."""


class BodyLimit:
    """Answers 413 to longer bodies, also to those that did not say how long they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].endswith("/groups"):
            await self._app(scope, receive, send)
            return
        total, answered = 0, False

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > MOST_BYTES:
                raise _TooMuchError
            return message

        async def watched(message: Message) -> None:
            """Replaces the application's response, which takes `_TooMuchError` for an unreadable body, with 413."""
            nonlocal answered
            if total <= MOST_BYTES:
                await send(message)
            elif not answered:
                answered = True
                detail = f"the body of this call may have {MOST_BYTES} bytes"
                await problem_response(413, "Content Too Large", detail)(scope, receive, send)

        await self._app(scope, counted, watched)
