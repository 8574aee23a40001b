"""The page without the API, for one job or run on this machine (`openseer run --page`, `openseer view`)."""

from fastapi import FastAPI, Request

from openseer_api.http import problems
from openseer_api.http.auth import Authenticator
from openseer_api.http.gate import JSON_BYTES, Gate, Place
from openseer_api.http.session import is_open, place_of
from openseer_api.page.routes import page_routes
from openseer_api.page.shown import Shown
from openseer_api.routes.access import Admission


class _PagePaths:
    """The paths of an app that serves only the page."""

    ready = ""
    health = frozenset[str]()

    def is_open(self, path: str) -> bool:
        return is_open(path)

    def place(self, path: str) -> Place | None:
        return place_of(path)

    def shape(self, path: str) -> problems.Shape:
        return problems.problem

    def body_bytes(self, path: str) -> int | None:
        return JSON_BYTES


class _One:
    """A directory with one job."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    async def find(self, namespace: str, name: str) -> Shown:
        return self._shown

    async def find_shown(self, namespace: str, name: str) -> Shown:
        return self._shown


def page_app(shown: Shown, auth: Authenticator) -> FastAPI:
    """Returns an application that serves the page of one job below /page, to callers that `auth` admits."""
    app = FastAPI(title="openseer", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)
    app.add_middleware(Gate, paths=_PagePaths(), admit=Admission(_One(shown), auth, many=False).admit)

    def found(request: Request) -> Shown:
        return request.state.job

    app.include_router(page_routes(auth, found, lambda: [shown]))
    return app
