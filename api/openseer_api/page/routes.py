"""Routes of the page: its files, login, and streams of views.

A stream ends after STREAM_SECONDS, and the page reconnects. So a revoked right is effective after this time, plus the
cache TTL of a right.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from math import floor
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import Field

from openseer_api.http.auth import Authenticator
from openseer_api.http.bodies import OwnRoute
from openseer_api.http.problems import BusyProblem, NotFoundProblem, fault_of
from openseer_api.http.session import PATH, forget_token, keep_token, token_in
from openseer_api.page.assets import INDEX, asset
from openseer_api.page.cards import cards
from openseer_api.page.shown import Listed, Shown, View
from openseer_core.errors import OpenseerError
from openseer_core.ids import GroupId
from openseer_core.json_model import INT53_MAX, JsonModel, KnownGroupName
from openseer_core.wire.batches import MAX_GROUP_SIZE
from openseer_core.wire.page import PageProblem

STREAM_SECONDS = 60.0
"""Duration of a stream of views, in seconds."""
MOST_STREAMS = 256
"""Limit of concurrently open streams of views in one process."""
JOBS_SECONDS = 2.0
"""Interval between views of all jobs, in seconds."""
EXPLAIN_SECONDS = 3.0
"""Interval between explanations of a job, in seconds."""
VIEW_SECONDS = 1.0
"""Interval between views of a job, a batch or a group, in seconds."""
LONGEST_TOKEN = 3000
"""Limit of a token, in characters: browsers store no cookies above 4 KiB."""
SSE = "text/event-stream"

BatchInPath = Annotated[int, Path(ge=0, le=INT53_MAX)]
Found = Callable[[Request], Shown]


class Login(JsonModel):
    """The body of a login. `token`: as in `Authorization: Bearer`."""

    token: Annotated[str, Field(min_length=1, max_length=LONGEST_TOKEN)]


def page_routes(auth: Authenticator, found: Found, everything: Callable[[], Sequence[Listed]]) -> APIRouter:
    """Returns all routes of the page. The OpenAPI document omits them, because their only client is the page.

    `found`: returns the job of a call that the gate has admitted; `everything`: returns all jobs of this server,
    whatever the caller's rights are.
    """
    router = APIRouter(prefix=PATH, route_class=OwnRoute, include_in_schema=False)
    _add_files(router)
    _add_login(router, auth)
    _add_views(router, auth, found, everything)
    return router


def _add_files(router: APIRouter) -> None:
    @router.get("")
    async def bare() -> Response:
        return RedirectResponse(f"{PATH}/")

    @router.get("/")
    async def index() -> Response:
        return _found(INDEX)

    @router.get("/assets/{name}")
    async def file(name: str) -> Response:
        return _found(f"assets/{name}")


def _add_login(router: APIRouter, auth: Authenticator) -> None:
    @router.post("/login", status_code=204)
    async def login(who: Login, request: Request, response: Response) -> None:
        """Checks the token, then stores it in a cookie."""
        await auth.identify(who.token)
        keep_token(request.headers, response, who.token)

    @router.post("/logout", status_code=204)
    async def logout(request: Request, response: Response) -> None:
        forget_token(request.headers, response)


def _add_views(
    router: APIRouter, auth: Authenticator, found: Found, everything: Callable[[], Sequence[Listed]]
) -> None:
    streams = _Streams()

    @router.get("/api/jobs")
    async def jobs(request: Request) -> Response:
        token = token_in(request.headers)
        return streams.open(lambda: _cards(auth, token, everything()), JOBS_SECONDS)

    @router.get("/api/jobs/{namespace}/{served}")
    async def job(request: Request) -> Response:
        shown = found(request)
        return streams.open(shown.job_view, VIEW_SECONDS, shown.job_pulse)

    @router.get("/api/jobs/{namespace}/{served}/explained")
    async def explained(request: Request) -> Response:
        return streams.open(found(request).explained, EXPLAIN_SECONDS)

    @router.get("/api/jobs/{namespace}/{served}/batches/{batch}")
    async def batch(request: Request, batch: BatchInPath) -> Response:
        shown = found(request)
        return streams.open(lambda: shown.batch_view(batch), VIEW_SECONDS)

    @router.get("/api/jobs/{namespace}/{served}/batches/{batch}/group")
    async def group(
        request: Request,
        batch: BatchInPath,
        name: Annotated[KnownGroupName, Query()],
        index: Annotated[int | None, Query(ge=0, lt=MAX_GROUP_SIZE)] = None,
    ) -> Response:
        views = found(request).group_views(GroupId(batch, name), index, request.headers.get("last-event-id", ""))
        return streams.open(views.view, VIEW_SECONDS, place=views.place)


def _found(name: str) -> Response:
    found = asset(name)
    if found is None:
        raise NotFoundProblem(f"the page has no file {name}")
    return found


async def _cards(auth: Authenticator, token: str | None, jobs: Sequence[Listed]) -> bytes:
    return (await cards(auth, token, jobs)).model_dump_json().encode()


class _Streams:
    """Opens and counts the streams of this process."""

    def __init__(self) -> None:
        self._open = 0

    def open(
        self, view: View, seconds: float, pulse: View | None = None, place: Callable[[], str] | None = None
    ) -> Response:
        """Returns a stream with a view every `seconds` seconds, and with a pulse between two views if `pulse` is given.
        `place`: returns the event id of the latest view. Raises BusyProblem if MOST_STREAMS are open."""
        if self._open >= MOST_STREAMS:
            raise BusyProblem(f"{MOST_STREAMS} pages are open on this server already; close one and reload")
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._counted(_events(view, seconds, pulse, place)), media_type=SSE, headers=headers)

    async def _counted(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open += 1
        try:
            async for event in events:
                yield event
        finally:
            self._open -= 1


async def _events(
    view: View, seconds: float, pulse: View | None, place: Callable[[], str] | None
) -> AsyncIterator[bytes]:
    """Yields views as server-sent events, for STREAM_SECONDS or until an error that is not retryable. In place of a
    view that equals the previous one it yields a comment.

    It yields the first view at once, and the others at multiples of the interval on the event loop's clock. These times
    are the same for all streams, so the viewers of a job share one read of the store.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + STREAM_SECONDS
    steps = [(b"view", view)] if pulse is None else [(b"view", view), (b"pulse", pulse)]
    sent = dict.fromkeys((kind for kind, _ in steps), b"")
    beat, number = seconds / len(steps), 0
    while loop.time() < ends_at:
        kind, look = steps[number % len(steps)]
        try:
            data = await look()
        except OpenseerError as error:
            fault = fault_of(error)
            problem = PageProblem(status=fault.status, detail=str(error))
            yield b"event: problem\ndata: %s\n\n" % problem.model_dump_json().encode()
            if not error.retryable:
                return
        else:
            named = b"id: %s\n" % place().encode() if place is not None else b""
            yield b"%sevent: %s\ndata: %s\n\n" % (named, kind, data) if data != sent[kind] else b": alive\n\n"
            sent[kind] = data
        number = floor(loop.time() / beat) + 1
        await asyncio.sleep(number * beat - loop.time())
