"""Counts calls by job and HTTP status, those that end in an error of our own included."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Answered = Callable[[object | None, int], None]
"""Called once for each answer: with the job that the gate has admitted the call to, None for none, and the status."""


class CallCounts:
    """Stands before all that answers, so that it sees what each of them said."""

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
        except Exception:  # the framework answers 500
            if not begun:
                self._answered(state.get("job"), 500)
            raise
