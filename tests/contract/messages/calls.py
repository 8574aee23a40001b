"""Mistakes in a trainer's calls of the API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from httpx import AsyncClient

from tests.api.served import TOKEN

GROUP = {"id": "a", "prompt_token_ids": [5, 6, 7]}


@dataclass(frozen=True)
class Call:
    """A wrong call. `what`: its mistake in words; `path`: below /v1; `body`: JSON, or bytes sent unchanged."""

    what: str
    method: str
    path: str
    body: Any = None
    token: str = TOKEN
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


OPEN = Call("", "POST", "/batches", {})
CALLS = (
    Call("has no token", "GET", "/job", token=""),
    Call("has the token of another server", "GET", "/job", token="another"),
    Call("has a path that does not exist", "GET", "/batch"),
    Call("has a body that is not JSON", "POST", "/batches", b"{"),
    Call("opens a batch with a misspelled field", "POST", "/batches", {"target": {"group": 2}}),
    Call("opens a batch of weights that were never published", "POST", "/batches", {"weights_version": "v9"}),
    Call("names a batch that does not exist", "GET", "/batches/77"),
    Call("submits a group with neither text nor tokens", "POST", "/batches/1/groups", {"groups": [{"id": "b"}]}),
    Call("submits a group without a response", "POST", "/batches/1/groups", {"groups": [GROUP | {"n": 0}]}),
    Call(
        "submits a negative token id",
        "POST",
        "/batches/1/groups",
        {"groups": [{"id": "d", "prompt_token_ids": [-1]}]},
    ),
    Call(
        "submits another group of the same name",
        "POST",
        "/batches/1/groups",
        {"groups": [GROUP | {"prompt_token_ids": [9]}]},
    ),
    Call(
        "asks for a sampling field that cannot be continued",
        "POST",
        "/batches/1/groups",
        {"groups": [{"id": "c", "prompt_token_ids": [5], "sampling": {"presence_penalty": 1.0}}]},
    ),
    Call("submits to a sealed batch", "POST", "/batches/2/groups", {"groups": [GROUP]}),
    Call("reads results from a cursor that is not a number", "GET", "/batches/1/results?cursor=x"),
    Call("publishes weights without a source", "POST", "/weights", {"version": "v1"}),
    Call(
        "publishes weights from two sources",
        "POST",
        "/weights",
        {"version": "v1", "source": {"path": "/w", "url": "http://w"}},
    ),
    Call(
        "continues a turn of a response that does not exist",
        "POST",
        "/batches/1/groups/z/requests/0/continue",
        {"turn": 1, "token_ids": [5]},
    ),
)


async def answer(http: AsyncClient, call: Call) -> tuple[str, int]:
    """The message and the status of the answer."""
    headers = {"Authorization": f"Bearer {call.token}", **call.headers} if call.token else dict(call.headers)
    body: dict[str, Any] = {}
    if isinstance(call.body, bytes):
        body, headers["Content-Type"] = {"content": call.body}, "application/json"
    elif call.body is not None:
        body = {"json": call.body}
    found = await http.request(call.method, f"/v1{call.path}", headers=headers, **body)
    assert 400 <= found.status_code < 500, f"{call.what}: {found.status_code} {found.text}"
    told = found.json()
    return told["detail"] if "detail" in told else told["error"]["message"], found.status_code
