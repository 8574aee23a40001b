"""The calls of the API as values: the request to send, and the parser of its response. No I/O."""

import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from openseer_client.errors import AnswerError, ApiError, error_of
from openseer_client.http.caller_span import caller_headers
from openseer_core.errors import InputError
from openseer_core.strict_json import require_whole_text
from openseer_core.weights.publish import Publish
from openseer_core.wire.batches import (
    Acknowledge,
    Batch,
    BatchList,
    BatchSpec,
    Cancel,
    Continue,
    Count,
    Group,
    GroupInfo,
    GroupNames,
    RequestInfo,
    UploadReceipt,
    Verdicts,
)
from openseer_core.wire.fleet import Acquire, Autoscaling, FleetState, JobStatus, Release, WorkerList
from openseer_core.wire.problem import Problem
from openseer_core.wire.results import ResultPage
from openseer_core.wire.weights import Transaction, Weights

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_JSON = "application/json"
_LINES = "application/x-ndjson"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_FLAT = TypeAdapter(dict[str, float])


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One HTTP call. `read`: parses the body of the response; `wait_seconds`: limit of the API's wait in a long poll.

    `gone_is_done`: 404 and 410 count as success, because the call deletes.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, str | int | float] = field(default_factory=dict[str, str | int | float])
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    wait_seconds: float = 0.0
    gone_is_done: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def answer(self, status: int, content: bytes) -> T:
        """Parses the response. Raises ApiError for a status other than 2xx, and for an invalid body."""
        if not 200 <= status < 300:
            raise error_of(problem_of(status, content), str(self))
        try:
            return self.read(content)
        except ValidationError as error:
            problem = Problem(title="Unknown answer", status=status, detail=str(error))
            raise AnswerError(problem, str(self)) from error


def ask(call: Call[T]) -> Generator[Call[T], T, T]:
    """Makes a call within a flow: yields it and returns its result."""
    return (yield call)


def problem_of(status: int, content: bytes) -> Problem:
    """Returns the problem in a response, also in a response of another server such as a proxy."""
    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        text = content.decode("utf-8", "replace").strip()
        return Problem(title="Refused", status=status, detail=text[:500] or "the response contains no details")


def unreachable(call: Call[Any], why: str) -> ApiError:
    """Returns the error for a call without a response."""
    return error_of(Problem(title="No answer", status=503, detail=why), str(call))


def _reads(model: type[M]) -> Callable[[bytes], M]:
    # A newer API may send fields that this client does not have.
    return lambda content: model.model_validate_json(content, extra="ignore")


def _nothing(_: bytes) -> None:
    return None


def _written(body: BaseModel, name: str) -> bytes:
    """Returns the body as JSON. Raises JsonError for text that UTF-8 cannot encode.
    `name`: of the body, in the error."""
    try:
        text = body.model_dump_json(exclude_none=True)
    except PydanticSerializationError:
        require_whole_text(body.model_dump(exclude_none=True), name)
        raise
    if _REPLACEMENT in text:
        # Pydantic writes this character for a lone surrogate in a key.
        require_whole_text(body.model_dump(exclude_none=True), name)
    return text.encode()


def _post(path: str, body: BaseModel | None, answer: type[M]) -> Call[M]:
    content = b"" if body is None else _written(body, "the body")
    return Call("POST", path, _reads(answer), body=content, headers={"Content-Type": _JSON})


def _batch(number: int, *rest: str | int) -> str:
    return "/".join(["/v1/batches", str(number), *(quote(str(part), safe="") for part in rest)])


def open_batch(spec: BatchSpec, key: str | None) -> Call[Batch]:
    """Returns the call that opens a batch; generates a key if it is None. Raises InputError for an empty key."""
    if key == "":
        raise InputError("key: found an empty one, allowed: 1 to 200 characters, or None")
    key = key or uuid.uuid4().hex
    body = _written(spec, "the batch")
    headers = {"Content-Type": _JSON, "Idempotency-Key": key} | caller_headers()
    return Call("POST", "/v1/batches", _reads(Batch), body=body, headers=headers)


def batches() -> Call[BatchList]:
    return Call("GET", "/v1/batches", _reads(BatchList))


def status(batch: int) -> Call[Batch]:
    return Call("GET", _batch(batch), _reads(Batch))


def forget(batch: int) -> Call[None]:
    return Call("DELETE", _batch(batch), _nothing, gone_is_done=True)


def metrics(batch: int) -> Call[dict[str, float]]:
    return Call("GET", _batch(batch, "metrics"), _FLAT.validate_json)


def upload(batch: int, groups: Sequence[Group]) -> Call[UploadReceipt]:
    lines = b"".join(_written(group, f"group {group.id}") + b"\n" for group in groups)
    headers = {"Content-Type": _LINES}
    return Call("POST", _batch(batch, "groups"), _reads(UploadReceipt), body=lines, headers=headers)


def seal(batch: int) -> Call[Batch]:
    return _post(_batch(batch, "seal"), None, Batch)


def cancel(batch: int, what: Cancel) -> Call[Count]:
    return _post(_batch(batch, "cancel"), what, Count)


def verdicts(batch: int, what: Verdicts) -> Call[Batch]:
    return _post(_batch(batch, "verdicts"), what, Batch)


def acknowledge(batch: int, cursor: int) -> Call[Batch]:
    return _post(_batch(batch, "acknowledge"), Acknowledge(cursor=cursor), Batch)


def results(batch: int, cursor: int, limit: int, wait_seconds: float) -> Call[ResultPage]:
    query = {"cursor": cursor, "limit": limit, "wait_seconds": wait_seconds}
    return Call("GET", _batch(batch, "results"), _reads(ResultPage), query, wait_seconds=wait_seconds)


def group_names(batch: int, start: int, limit: int) -> Call[GroupNames]:
    return Call("GET", _batch(batch, "groups"), _reads(GroupNames), {"start": start, "limit": limit})


def group(batch: int, name: str) -> Call[GroupInfo]:
    return Call("GET", _batch(batch, "groups", name), _reads(GroupInfo))


def request(batch: int, name: str, index: int) -> Call[RequestInfo]:
    return Call("GET", _batch(batch, "groups", name, "requests", index), _reads(RequestInfo))


def go_on(batch: int, name: str, index: int, what: Continue) -> Call[RequestInfo]:
    return _post(_batch(batch, "groups", name, "requests", index, "continue"), what, RequestInfo)


def job() -> Call[JobStatus]:
    return Call("GET", "/v1/job", _reads(JobStatus))


def workers() -> Call[WorkerList]:
    return Call("GET", "/v1/workers", _reads(WorkerList))


def autoscaling() -> Call[Autoscaling]:
    return Call("GET", "/v1/autoscaling", _reads(Autoscaling))


def publish(what: Publish) -> Call[Transaction]:
    return _post("/v1/weights", what, Transaction)


def weights(revision: int | None, wait_seconds: float) -> Call[Weights]:
    query: dict[str, str | int | float] = {"wait_seconds": wait_seconds}
    if revision is not None:
        query["revision"] = revision
    return Call("GET", "/v1/weights", _reads(Weights), query, wait_seconds=wait_seconds)


def abort_weights() -> Call[Weights]:
    return _post("/v1/weights/abort", None, Weights)


def remove_adapter(name: str) -> Call[None]:
    return Call("DELETE", f"/v1/weights/adapters/{quote(name, safe='')}", _nothing, gone_is_done=True)


def release(what: Release) -> Call[FleetState]:
    return _post("/v1/release", what, FleetState)


def acquire(what: Acquire) -> Call[FleetState]:
    return _post("/v1/acquire", what, FleetState)


def fleet(wait_seconds: float) -> Call[FleetState]:
    return Call("GET", "/v1/fleet", _reads(FleetState), {"wait_seconds": wait_seconds}, wait_seconds=wait_seconds)
