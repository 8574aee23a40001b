"""Errors of the compatible routes, in the shape that their clients parse: {"error": {message, type, param, code}}."""

from fastapi.responses import JSONResponse

from openseer_api.http.problems import Fault, fault_of
from openseer_core.errors import OpenseerError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}
MOST_WRONG = 5
"""Limit of wrong fields that one error names."""


class LostError(OpenseerError):
    """A response lost its workers too often, or its batch was deleted. It is an error, never an empty sample."""

    retryable = True


class FailedResponseError(OpenseerError):
    """A response failed because of its weights: neither another request nor a retry helps."""


def protocol_error(fault: Fault) -> JSONResponse:
    """Renders a fault in the shape of the compatible routes; status 422 becomes 400."""
    wrong = [f"{entry['where'].partition('.')[2] or entry['where']}: {entry['what']}" for entry in fault.errors]
    status = 400 if fault.status == 422 else fault.status
    message = "; ".join(wrong[:MOST_WRONG]) or fault.detail
    kind = _TYPES.get(status, "server_error")
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status, dict(fault.headers))


def error_response(status: int, message: str) -> JSONResponse:
    """Returns a response with one error."""
    return protocol_error(Fault(status, message))


def status_of(error: OpenseerError) -> int:
    """Returns the HTTP status of an error in the compatible routes; 422 becomes 400."""
    status = fault_of(error).status
    return 400 if status == 422 else status
