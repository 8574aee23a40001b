"""Counts calls by job and HTTP status, internal errors included."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answered = Callable[[object | None, int], None]
"""Callback for each response, with the job to which the gate admitted the call (None for none) and the HTTP status."""


class CallCounts:
    """The outermost middleware: it counts the responses of all others."""

    def __init__(self, app: ASGIApp, answered: Answered) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                self._answered(state.get("job"), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:  # Starlette responds 500
            if not begun:
                self._answered(state.get("job"), 500)
            raise
