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
    OpenseerError,
    PublishRefusedError,
    RequestStateError,
)
from openseer_core.wire.problem import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""What Retry-After says of a failure that may pass."""
MOST_ERRORS = 20
"""Wrong fields that one answer names."""


class NotFoundProblem(OpenseerError):
    """There is no such batch, group or request (or job)."""


class ConflictProblem(OpenseerError):
    """It does not go together with how things stand."""


class TooLargeProblem(OpenseerError):
    """More than one call may carry."""


class BusyProblem(OpenseerError):
    """As much waits as may wait; what was accepted is safe, the rest is to be sent again later."""

    retryable = True


STATUSES: dict[type[OpenseerError], tuple[int, str]] = {
    Unauthenticated: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    NotFoundProblem: (404, "Not Found"),
    ConflictProblem: (409, "Conflict"),
    BatchClosedError: (409, "Conflict"),
    RequestStateError: (409, "Conflict"),
    PublishRefusedError: (409, "Conflict"),
    TooLargeProblem: (413, "Content Too Large"),
    InputError: (422, "Unprocessable Content"),
    BusyProblem: (429, "Too Many Requests"),
}
"""Nearest class first; any other error that may pass is 503, one that will not 500."""

_TITLES = {401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed", 422: "Unprocessable Content"}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Answers that a route may give beside its own, for the OpenAPI document."""
    always = (401, 403, 404, 422, 503)
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in sorted({*always, *statuses})}


def problem_response(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, errors: Sequence[Any] = ()
) -> JSONResponse:
    """One problem."""
    body = Problem(title=title, status=status, detail=detail, errors=list(errors) or None)
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""
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
    """The store's way to say that it knows no such group or request."""
    return problem_response(404, "Not Found", f"there is no {error.args[0]}" if error.args else "there is none")


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = _TITLES.get(error.status_code, "Error")
    return problem_response(error.status_code, title, str(error.detail), error.headers)


async def _wrong_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [{"where": ".".join(map(str, one["loc"])), "what": one["msg"]} for one in error.errors()]
    said = "; ".join(f"{one['where']}: {one['what']}" for one in found[:MOST_ERRORS])
    return problem_response(422, "Unprocessable Content", said, errors=found[:MOST_ERRORS])
