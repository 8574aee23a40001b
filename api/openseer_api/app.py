"""The application: routes over a directory of jobs and an authenticator; it knows no concrete one of either."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse

from openseer_api.compat import compatible_routers
from openseer_api.http import problems
from openseer_api.http.auth import Authenticator
from openseer_api.http.limits import BodyLimit
from openseer_api.http.shutdown import AskAgain
from openseer_api.job.context import JobDirectory
from openseer_api.routes import batches, fleet, groups, results, weights
from openseer_api.routes.access import named_job, one_job

PREFIX = "/jobs/{namespace}/{job}"
"""Where the gateway of a cluster has each job; on one machine the job's routes are at the root."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The document, with the models to which the body of an upload refers."""
        document = super().openapi()
        schemas = document["components"]["schemas"]
        schemas.update({name: schema for name, schema in groups.BODY_MODELS.items() if name not in schemas})
        return document


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
) -> FastAPI:
    """`many`: jobs are named in the path. `ready`: whether requests should be sent here."""
    app = _Application(
        title="openseer",
        version=version("openseer"),
        description="Rollouts for LLM reinforcement learning: batches, results, weights.",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.directory, app.state.auth = directory, auth
    problems.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(AskAgain)
    _add_health(app, ready)
    prefix, find = (PREFIX, named_job) if many else ("", one_job)
    for router in _routers():
        app.include_router(router, prefix=prefix, dependencies=[Depends(find)])
    document = APIRouter()

    @document.get("/v1/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, object]:
        return app.openapi()

    app.include_router(document, prefix=prefix, dependencies=[Depends(find)])
    return app


def _routers() -> Sequence[APIRouter]:
    ours = APIRouter(prefix="/v1")
    for module in (batches, groups, results, weights, fleet):
        ours.include_router(module.router)
    return [ours, fleet.plain, *compatible_routers()]


def _add_health(app: FastAPI, ready: Callable[[], bool]) -> None:
    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process lives."""
        return "ok\n"

    @app.get("/readyz", tags=["health"], response_class=PlainTextResponse, responses={503: {"description": "Not yet."}})
    async def readyz(response: Response) -> str:
        """Requests may be sent here."""
        if not ready():
            response.status_code = 503
            return "no\n"
        return "ok\n"
