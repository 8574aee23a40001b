"""Errors of the compatible routes, in the shape that their clients read: {"error": {message, type, param, code}}."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from openseer_api.http.problems import RETRY_SECONDS, STATUSES
from openseer_core.errors import InputError, OpenseerError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
MOST_WRONG = 5
"""Most wrong fields that one error names."""
GONE = 499
"""The status for a client that has closed the connection; nobody reads it."""


class LostError(OpenseerError):
    """A response lost its workers too often, or its batch; it is never reported as an empty sample."""

    retryable = True


class GoneError(OpenseerError):
    """The client has closed the connection; its requests are cancelled."""


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """One error."""
    kind = _TYPES.get(status, "server_error")
    return JSONResponse(
        {"error": {"message": message, "type": kind, "param": None, "code": status}}, status, dict(headers or {})
    )


class ProtocolRoute(APIRoute):
    """A route whose errors, those of its dependencies included, have that shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors as responses."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except GoneError:
                return Response(status_code=GONE)
            except RequestValidationError as error:
                return error_response(400, _wrong(error))
            except HTTPException as error:
                return error_response(error.status_code, str(error.detail), error.headers)
            except OpenseerError as error:
                return _ours(error)

        return answered


def _wrong(error: RequestValidationError) -> str:
    found = [f"{'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in error.errors()]
    return "; ".join(found[:MOST_WRONG])


def status_of(error: OpenseerError) -> int:
    """The HTTP status of one of our errors; what is wrong with a request is 400 here."""
    if isinstance(error, InputError):
        return 400
    kind = next((kind for kind in type(error).__mro__ if kind in STATUSES), None)
    if kind is not None:
        return STATUSES[kind][0]
    return 503 if error.retryable else 500


def _ours(error: OpenseerError) -> Response:
    status, headers = status_of(error), dict[str, str]()
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    return error_response(status, str(error), headers)
