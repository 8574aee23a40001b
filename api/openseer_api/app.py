"""Builds the FastAPI application from a directory of jobs and an authenticator, which the caller chooses."""

import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from openseer_api.compat import GENERATING, compatible_routers, protocol_error
from openseer_api.http import problems
from openseer_api.http.auth import Authenticator
from openseer_api.http.bodies import OwnRoute
from openseer_api.http.call_counts import CallCounts
from openseer_api.http.gate import GENERATING_BYTES, JSON_BYTES, Gate, Place
from openseer_api.http.session import PATH, is_open, place_of
from openseer_api.http.shutdown import AskAgain
from openseer_api.job.context import JobContext, JobDirectory
from openseer_api.page.cards import NotOpen
from openseer_api.page.feed import Feeds
from openseer_api.page.routes import page_routes
from openseer_api.page.shown import Listed, Shown
from openseer_api.routes import batches, fleet, groups, results, weights
from openseer_api.routes.access import Admission, named_job, one_job

PREFIX = "/jobs/{namespace}/{job}"
"""Path prefix of a job's routes in the gateway of a cluster; on one machine they are at the root."""

_IN_JOB = re.compile(r"/jobs/([^/]+)/([^/]+)(/.*)")
_OPEN = frozenset({"/healthz", "/readyz"})
_UPLOAD = re.compile(r"/v1/batches/[^/]+/groups")
_PART = re.compile(r"\{[^}]*\}")
_DOCUMENT = "/v1/openapi.json"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document, with the models to which the body of an upload refers."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        schemas.update({name: schema for name, schema in groups.BODY_MODELS.items() if name not in schemas})
        return document


class _Paths:
    """Classifies paths for the gate. `many`: paths of jobs begin with PREFIX."""

    ready = "/readyz"
    health = frozenset({"/health", "/ping", "/liveness"})

    def __init__(self, *, many: bool) -> None:
        self._many = many
        paths = [getattr(route, "path", "") for router in _our_routers() for route in router.routes]
        patterns = [_PART.sub("[^/]+", path) for path in (*paths, _DOCUMENT, *_OPEN)]
        self._ours = re.compile("|".join(patterns))

    def is_open(self, path: str) -> bool:
        return path in _OPEN or is_open(path)

    def place(self, path: str) -> Place | None:
        if (of_page := place_of(path)) is not None:
            return of_page
        if not self._many:
            return Place("", "", path)
        found = _IN_JOB.fullmatch(path)
        return Place(*found.groups()) if found is not None else None

    def shape(self, path: str) -> problems.Shape:
        """Returns the shape of errors at a path: problems for openseer's own routes, else that of the compatible
        routes, also for unknown paths below /v1, because mostly clients of other servers call them."""
        ours = path.startswith(PATH) or self._ours.fullmatch(path)
        return problems.problem if ours else protocol_error

    def body_bytes(self, path: str) -> int | None:
        if _UPLOAD.fullmatch(path):
            return None
        return GENERATING_BYTES if path in GENERATING else JSON_BYTES


@asynccontextmanager
async def _nothing(_app: FastAPI) -> AsyncGenerator[None]:
    yield


def create_app(
    directory: JobDirectory,
    auth: Authenticator,
    *,
    many: bool = False,
    ready: Callable[[], bool] = lambda: True,
    lifespan: Lifespan = _nothing,
    trusted: str = "",
    refused: Counter[int] | None = None,
) -> FastAPI:
    """Returns the application. `many`: the path names the job. `ready`: whether the process accepts requests (/readyz).
    `trusted`: see Admission. `refused`: counter, by HTTP status, of failed calls that were admitted to no job."""
    app = _Application(
        title="openseer",
        version=version("openseer"),
        description="Rollouts for LLM reinforcement learning: batches, results, weights.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.add_middleware(
        Gate, paths=_Paths(many=many), admit=Admission(directory, auth, many=many, trusted=trusted).admit
    )
    app.add_middleware(AskAgain)
    app.add_middleware(CallCounts, answered=_counting(Counter() if refused is None else refused))
    _add_health(app, ready)
    prefix, find = (PREFIX, named_job) if many else ("", one_job)
    for router in (*_our_routers(), *compatible_routers()):
        app.include_router(router, prefix=prefix, dependencies=[Depends(find)])
    document = APIRouter(route_class=OwnRoute)

    @document.get(_DOCUMENT, include_in_schema=False)
    async def openapi() -> dict[str, object]:
        return app.openapi()

    app.include_router(document, prefix=prefix, dependencies=[Depends(find)])
    _add_page(app, auth, directory)
    return app


def _add_page(app: FastAPI, auth: Authenticator, directory: JobDirectory) -> None:
    feeds = Feeds()

    def found(request: Request) -> Shown:
        return feeds.of(request.state.job)

    def everything() -> list[Listed]:
        return [*map(feeds.of, directory.open_jobs()), *map(NotOpen, directory.unopened())]

    app.include_router(page_routes(auth, found, everything))


def _counting(refused: Counter[int]) -> Callable[[object | None, int], None]:
    def note(job: object | None, status: int) -> None:
        if isinstance(job, JobContext):
            job.calls[status] += 1
        elif status >= 400:  # successful calls without a job are not counted: probes, files of the page
            refused[status] += 1

    return note


def _our_routers() -> Sequence[APIRouter]:
    ours = APIRouter(prefix="/v1")
    for module in (batches, groups, results, weights, fleet):
        ours.include_router(module.router)
    return [ours, fleet.plain]


def _add_health(app: FastAPI, ready: Callable[[], bool]) -> None:
    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """Returns 200 while the process runs."""
        return "ok\n"

    @app.get("/readyz", tags=["health"], response_class=PlainTextResponse, responses={503: {"description": "Not yet."}})
    async def readyz(response: Response) -> str:
        """Returns 200 if requests may be sent to this process, else 503."""
        if not ready():
            response.status_code = 503
            return "no\n"
        return "ok\n"
