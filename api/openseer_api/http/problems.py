"""Errors as a caller sees them: RFC 9457 problems, one table from our errors to HTTP statuses."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from openseer_api.http.auth import Forbidden, Unauthenticated
from openseer_core.errors import (
    BatchClosedError,
    InputError,
    NameTakenError,
    OpenseerError,
    PublishRefusedError,
    RequestStateError,
)
from openseer_core.wire.problem import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""The Retry-After of errors that may pass."""
MOST_ERRORS = 20
"""Most wrong fields that one problem names."""


class NotFoundProblem(OpenseerError):
    """There is no such batch, group or request (or job)."""


class ConflictProblem(OpenseerError):
    """Conflicts with the resource's current state."""


class TooLargeProblem(OpenseerError):
    """The body is larger than the limit of one call."""


class BusyProblem(OpenseerError):
    """The queue is full, or the fleet is changing; what was accepted is kept, the rest has to be sent again later."""

    retryable = True


STATUSES: dict[type[OpenseerError], tuple[int, str]] = {
    Unauthenticated: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    NotFoundProblem: (404, "Not Found"),
    ConflictProblem: (409, "Conflict"),
    BatchClosedError: (409, "Conflict"),
    NameTakenError: (409, "Conflict"),
    RequestStateError: (409, "Conflict"),
    PublishRefusedError: (409, "Conflict"),
    TooLargeProblem: (413, "Content Too Large"),
    InputError: (422, "Unprocessable Content"),
    BusyProblem: (429, "Too Many Requests"),
}
"""Nearest class first; any other error that may pass is 503, one that will not 500."""

_TITLES = {401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed", 422: "Unprocessable Content"}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error responses of a route, for the OpenAPI document."""
    always = (401, 403, 404, 422, 503)
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in sorted({*always, *statuses})}


def problem_response(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, errors: Sequence[Any] = ()
) -> JSONResponse:
    """A response with one problem."""
    body = Problem(title=title, status=status, detail=detail, errors=list(errors) or None)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answers every error of the application with a problem."""
    app.add_exception_handler(OpenseerError, _ours)
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(KeyError, _unknown)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OpenseerError)
    kind = next((kind for kind in type(error).__mro__ if kind in STATUSES), None)
    status, title = STATUSES[kind] if kind else (503, "Service Unavailable") if error.retryable else (500, "Error")
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    return problem_response(status, title, str(error), headers)


async def _unknown(_request: Request, error: Exception) -> JSONResponse:
    """The store raises KeyError for a group or request that does not exist."""
    return problem_response(404, "Not Found", f"there is no {error.args[0]}" if error.args else "there is none")


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = _TITLES.get(error.status_code, "Error")
    return problem_response(error.status_code, title, str(error.detail), error.headers)


async def _wrong_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"where": ".".join(map(str, entry["loc"])), "what": entry["msg"]} for entry in error.errors()]
    detail = "; ".join(f"{entry['where']}: {entry['what']}" for entry in errors[:MOST_ERRORS])
    return problem_response(422, "Unprocessable Content", detail, errors=errors[:MOST_ERRORS])
