"""Every route, with hostile bodies, parameters, header fields and tokens: each call is answered, never with a 5xx."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from openseer_api.app import create_app
from openseer_api.compat.control import lending, updating
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job

ANSWER_SECONDS = 120.0
"""An answer that takes longer is one that never comes."""
EXAMPLES = 15
"""Calls of each route."""
FAILS = {"/wake_up", "/resume_memory_occupation", "/health_generate", "/update_weights", "/finish_weight_update"}
"""Routes that say with 5xx that the fleet, which has no worker here, has not done what it should."""
RIGHT = b"Bearer " + TOKEN.encode()
WRONG = (
    b"",
    b"Bearer",
    b"Bearer x",
    b"Basic \xff",
    b"Basic gA==",
    b"basic Zzp4",
    b"\xff\x00",
    b"Bearer " + b"x" * 20_000,
)

APP = create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN))
ROUTES = {
    f"{method} {route.path}": (method, route)
    for route in APP.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods - {"HEAD"})
}
VALID: list[dict[str, Any]] = [
    {"id": "g", "prompt_token_ids": [5]},
    {"groups": [{"id": "g", "prompt_token_ids": [5]}]},
    {"prompt": [5, 6], "max_tokens": 2},
    {"input_ids": [[5], [6]], "sampling_params": {"max_new_tokens": 2}},
    {"token_ids": [5], "sampling_params": {}},
    {"messages": [{"role": "user", "content": "a"}]},
    {"model_path": "/a", "weight_dir": "/a"},
    {"version": "v", "source": {"path": "/a"}, "canary": {"token_ids": [1, 2], "logprobs": [0.1]}},
    {"turn": 0, "token_ids": [1]},
    {"cursor": 0},
    {"target": {"groups": 1}, "sampling": {"maxTokens": 5}, "metadata": {"a": 1}},
]
"""Bodies that some route takes: changed in one place they get further than nonsense does."""
NAMES = sorted(
    {name for body in VALID for name in body}
    | {
        "n",
        "seed",
        "stop",
        "temperature",
        "rid",
        "text",
        "stream",
        "logprobs",
        "valid",
        "index",
        "update_info",
        "top_k",
    }
)

scalars = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 2**31, 2**53, 2**64, -(2**70), 10**400, 1e308, 5e-324, float("nan"), float("inf")])
    | st.integers()
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["", "\x00", "\ud800", "a" * 5000, "../..", "~", "😀"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


def with_field(body: dict[str, Any], name: str, value: object) -> bytes:
    return json.dumps(body | {name: value}).encode()


bodies = (
    st.builds(with_field, st.sampled_from(VALID), st.sampled_from(NAMES), values)
    | st.sampled_from(VALID).map(lambda body: json.dumps(body).encode())
    | values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
    | st.sampled_from(
        [b"", b"[" * 50_000, b'{"a":' * 5000, b'{"turn": 0, "turn": 1}', b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00"]
    )
)
words = st.sampled_from(
    ["0", "1", "-1", "9" * 30, "g", "g~1", "", "\x00", "é", "nan", "1e999", "true", "a" * 300, "../x", "%"]
)
fields = st.fixed_dictionaries(
    {
        b"content-type": st.sampled_from(
            [b"application/json"] * 6 + [b"", b"text/plain", b"application/x-ndjson", b"\xff"]
        )
    },
    optional={
        b"accept": st.sampled_from([b"text/event-stream", b"application/x-ndjson", b"\xff"]),
        b"idempotency-key": st.sampled_from([b"k", b"", b"\xff", b"k" * 300, b"a b"]),
        b"last-event-id": st.sampled_from([b"0", b"1", b"-1", b"x", b"9" * 30, b"\xff"]),
        b"x-request-id": st.sampled_from([b"r", b"", b"\xff", b"r" * 5000]),
        b"x-openseer-group": st.sampled_from([b"g", b"", b"\xff", b"~", b"g" * 5000]),
        b"content-encoding": st.sampled_from([b"gzip", b"identity", b"\xff"]),
        b"content-length": st.sampled_from([b"0", b"9" * 30, b"-1", b"x", b"\xff"]),
    },
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all calls, so that tasks that a call leaves behind affect the next one."""
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lending, "SLEEP_SECONDS", 0.0)
        patch.setattr(lending, "WAKE_SECONDS", 0.0)
        patch.setattr(updating, "UPDATE_SECONDS", 0.0)
        yield runner


async def ask(method: str, path: str, query: str, head: dict[bytes, bytes], body: bytes) -> tuple[int, bytes]:
    """Status and content of one call; the caller disconnects after its body if no answer comes."""
    scope: dict[str, Any] = {
        "type": "http", "method": method, "path": path, "raw_path": quote(path).encode(), "root_path": "",
        "query_string": query.encode(), "http_version": "1.1", "headers": list(head.items()), "server": ("a", 80),
        "scheme": "http",
    }  # fmt: skip
    sent, answered, status, content = False, asyncio.Event(), 0, b""

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body}
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status, content
        status = message.get("status", status)
        content += message.get("body", b"")
        answered.set()

    async with asyncio.timeout(ANSWER_SECONDS):
        await APP(scope, receive, send)
    return status, content


def is_error(content: bytes) -> bool:
    """Whether the answer has a reason, in the form of one of the protocols."""
    told = json.loads(content)
    reason = told.get("detail") or told.get("message") or told.get("error_message")
    return bool(reason or told.get("error", {}).get("message"))


def is_open(path: str) -> bool:
    """Whether a path needs no token in a header: health, and the page's paths outside of jobs, which use a cookie."""
    return path in ("/healthz", "/readyz") or (path.startswith("/page") and "{namespace}" not in path)


@pytest.mark.parametrize("label", sorted(ROUTES))
def test_every_hostile_call_is_answered_without_a_5xx(runner: asyncio.Runner, label: str) -> None:
    method, route = ROUTES[label]

    @given(st.data())
    @settings(max_examples=EXAMPLES)
    def fuzz(data: st.DataObject) -> None:
        path = re.sub(r"\{\w+\}", lambda _: data.draw(words).replace("/", "-") or "1", route.path)
        known = [field.alias for field in route.dependant.query_params if field.alias != "wait_seconds"]
        query = "&".join(f"{name}={quote(data.draw(words))}" for name in known if data.draw(st.booleans()))
        head, body = data.draw(fields), data.draw(bodies)
        wrong = data.draw(st.sampled_from(WRONG))
        if not is_open(route.path):
            status, content = runner.run(ask(method, path, query, head | {b"authorization": wrong}, body))
            assert status == 401
            assert is_error(content)
        status, content = runner.run(ask(method, path, query, head | {b"authorization": RIGHT}, body))
        assert 200 <= status < 500 or (status in (500, 503) and path in FAILS), content
        if 400 <= status < 499 and path != "/flush_cache":
            assert is_error(content)

    fuzz()
