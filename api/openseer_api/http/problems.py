"""Errors in HTTP: a table from errors to statuses, and the shape of openseer's own routes, RFC 9457 problems.

Every exception of a call is converted to a `Fault`, and the fault to a response by a `Shape`. The gate stores the shape
for the path in the call's scope.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Scope

from openseer_api.http.auth import Forbidden, Unauthenticated
from openseer_core.errors import (
    BatchClosedError,
    InputError,
    NameTakenError,
    OpenseerError,
    PublishRefusedError,
    RequestStateError,
)
from openseer_core.ids import GroupId, RequestId
from openseer_core.json_words import wrong_places
from openseer_core.weights.url import without_passwords
from openseer_core.wire.problem import Problem

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""Retry-After of temporary errors, in seconds."""
MOST_ERRORS = 20
"""Limit of wrong fields that one problem names."""
LONGEST_PLACE = 200
"""Limit of a wrong field's place in a problem, in characters; it may contain a caller's own keys."""

log = logging.getLogger(__name__)


class NotFoundProblem(OpenseerError):
    """The batch, group, request or job does not exist."""


class ConflictProblem(OpenseerError):
    """Conflicts with the resource's current state."""


class TooLargeProblem(OpenseerError):
    """The body is larger than the limit of one call."""


class BusyProblem(OpenseerError):
    """The queue is full, or the fleet is changing. Accepted groups stay queued; the call must be repeated later."""

    retryable = True


class GoneError(OpenseerError):
    """The caller has closed the connection. Its requests are cancelled, and the response is discarded."""


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
    GoneError: (499, "Client Closed Request"),
}
"""HTTP status and title by error class; the nearest base class counts.
Any other error is 503 if it is retryable, else 500."""


_TITLES = dict(STATUSES.values()) | {
    405: "Method Not Allowed",
    408: "Request Timeout",
    415: "Unsupported Media Type",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """An HTTP error, independent of a protocol. `errors`: wrong fields, each with `where` and `what`."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    errors: Sequence[Mapping[str, str]] = ()

    @property
    def title(self) -> str:
        """The status in words."""
        return _TITLES.get(self.status, "Error")


NO_ROUTE = (
    "no route has this path: those of /v1 are in /v1/openapi.json, those of vLLM, SGLang and OpenAI in "
    "docs/compatible-routes.md; an OpenAI client's base URL ends in /v1"
)

Shape = Callable[[Fault], JSONResponse]
"""Renders an error for the clients of one protocol."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the error responses of a route, for the OpenAPI document."""
    always = (401, 403, 404, 422, 503)
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in sorted({*always, *statuses})}


def fault_of(error: Exception) -> Fault:
    """Returns the fault that a caller receives for an exception, without passwords.
    Errors caused by a body or a name are 4xx."""
    fault = _fault_of(error)
    errors = [{name: without_passwords(text) for name, text in entry.items()} for entry in fault.errors]
    return replace(fault, detail=without_passwords(fault.detail), errors=errors)


def _fault_of(error: Exception) -> Fault:
    if isinstance(error, OpenseerError):
        return _ours(error)
    if isinstance(error, HTTPException):
        no_route = (error.status_code, error.detail) == (404, "Not Found")  # Starlette's own
        return Fault(error.status_code, NO_ROUTE if no_route else str(error.detail), error.headers or {})
    if isinstance(error, RequestValidationError):
        return _wrong(error.errors())
    if isinstance(error, ValidationError):
        return _wrong(error.errors(include_url=False))
    if isinstance(error, KeyError):  # the store raises it for a group or request that does not exist
        return Fault(
            404, f"there is no {_named(error.args[0])}{_listed(error.args[0])}" if error.args else "there is none"
        )
    if isinstance(error, UnicodeError):
        return Fault(422, "found text with half a character (a lone surrogate), allowed: what UTF-8 can hold")
    if isinstance(error, RecursionError):
        return Fault(422, "the body is nested too deeply")
    return Fault(500, "an internal error of openseer; see the server's log")


def _named(missing: object) -> str:
    if isinstance(missing, RequestId):
        return f"response {missing.index} of {_named(missing.group)}"
    return f"group {missing.name} in batch {missing.batch}" if isinstance(missing, GroupId) else str(missing)


def _listed(missing: object) -> str:
    """The call that lists the groups and responses of the batch."""
    group = missing.group if isinstance(missing, RequestId) else missing
    return f"; GET /v1/batches/{group.batch}/groups lists its groups" if isinstance(group, GroupId) else ""


def problem(fault: Fault) -> JSONResponse:
    """Renders a fault in the shape of openseer's own routes."""
    body = Problem(
        title=fault.title,
        status=fault.status,
        detail=fault.detail,
        errors=[dict(entry) for entry in fault.errors] or None,
    )
    return JSONResponse(body.model_dump(exclude_none=True), fault.status, fault.headers, MEDIA_TYPE)


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Returns a response with one problem."""
    return problem(Fault(status, detail, headers or {}))


def shape_of(scope: Scope) -> Shape:
    """Returns the shape of a call's errors."""
    return scope.get("state", {}).get("shape", problem)


def install(app: FastAPI) -> None:
    """Installs handlers that convert every exception to a response in the shape of the call's path."""
    for kind in (OpenseerError, HTTPException, RequestValidationError, KeyError):
        app.add_exception_handler(kind, _answered)
    for kind in (ValidationError, UnicodeError, RecursionError):
        app.add_exception_handler(kind, _answered_and_logged)
    app.add_exception_handler(Exception, _answered)  # Starlette logs these


async def _answered(request: Request, error: Exception) -> JSONResponse:
    return shape_of(request.scope)(fault_of(error))


async def _answered_and_logged(request: Request, error: Exception) -> JSONResponse:
    """Refuses a call that an earlier check should have refused, and logs the traceback."""
    log.warning(
        "%s %s: an earlier check should have refused this: %s", request.method, request.url.path, error, exc_info=error
    )
    return await _answered(request, error)


def _ours(error: OpenseerError) -> Fault:
    kind = next((kind for kind in type(error).__mro__ if kind in STATUSES), None)
    status = STATUSES[kind][0] if kind else 503 if error.retryable else 500
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    return Fault(status, str(error), headers)


def _wrong(found: Sequence[Any]) -> Fault:
    wrong = wrong_places(found, MOST_ERRORS)
    errors = [{"where": where[:LONGEST_PLACE], "what": what} for where, what in wrong]
    return Fault(422, "; ".join(f"{entry['where']}: {entry['what']}" for entry in errors), errors=errors)
