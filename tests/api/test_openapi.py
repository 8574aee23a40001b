"""The OpenAPI document holds: for any call, no answer is a 5xx or undocumented."""

# schemathesis has few types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportAttributeAccessIssue=false
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from openseer_api.app import create_app
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_core.wire.results import MAX_WAIT_SECONDS
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, prompts, serving_job
from tests.api.threaded import ThreadedServer

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
AUTH = {"Authorization": f"Bearer {TOKEN}"}
CALL_SECONDS = 120.0
"""An answer that takes longer is one that never comes."""


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedServer]:
    """A server with workers, and a batch for calls to find."""
    with ThreadedServer(serving_job("fuzzed")) as threaded:
        with httpx.Client(base_url=threaded.url, headers=AUTH, timeout=CALL_SECONDS) as client:
            assert client.post("/v1/batches", json={}).json()["id"] == 1
            assert client.post("/v1/batches/1/groups", json={"groups": prompts(3)}).status_code == 200
        yield threaded


@schemathesis.serializer("application/x-ndjson")
def lines(_context: object, value: object) -> bytes:
    """A body of lines that schemathesis generates."""
    return str(value).encode()


APP = create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN))
SCHEMA = schemathesis.openapi.from_dict(APP.openapi())
LONGEST_WAIT = 0.2
OPERATIONS = {operation.label: operation for operation in (found.ok() for found in SCHEMA.get_all_operations())}


def test_the_document_is_openapi_3_1_and_names_every_route(server: ThreadedServer) -> None:
    document = httpx.get(f"{server.url}/v1/openapi.json", headers=AUTH, timeout=CALL_SECONDS).json()
    assert document["openapi"].startswith("3.1")
    assert len(document["paths"]) > 20
    for path, methods in document["paths"].items():
        for name, operation in methods.items():
            assert operation["responses"], (path, name)


def references(node: Any) -> Iterator[str]:
    """All values of `$ref` below a node of the document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_of_the_document_resolves() -> None:
    document = APP.openapi()
    found = set(references(document))
    assert "#/components/schemas/Group" in found
    for reference in found:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in node, reference
            node = node[part]


@pytest.mark.slow
@pytest.mark.parametrize("label", sorted(OPERATIONS))
def test_no_call_gets_a_server_error_or_an_undocumented_answer(server: ThreadedServer, label: str) -> None:
    @given(st.data())
    @settings(
        max_examples=20,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    def fuzz(data: st.DataObject) -> None:
        case = data.draw(OPERATIONS[label].as_strategy())
        wait = (case.query or {}).get("wait_seconds")
        if isinstance(wait, int | float) and 0 < wait <= MAX_WAIT_SECONDS:
            case.query["wait_seconds"] = min(wait, LONGEST_WAIT)
        answer = case.call(base_url=server.url, headers=AUTH, timeout=CALL_SECONDS)
        case.validate_response(answer, checks=CHECKS)

    fuzz()
