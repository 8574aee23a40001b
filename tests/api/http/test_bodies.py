"""A request body is either read as sent, or refused with the position of the error."""

import json
from functools import cache
from threading import current_thread, main_thread
from typing import Any

import httpx
import pytest
from pydantic import model_validator

from openseer_api.app import create_app
from openseer_api.http.auth import BearerAuth
from openseer_api.http.bodies import THREAD_BYTES
from openseer_api.job.context import JobContext, OneJob
from openseer_api.routes import groups
from openseer_core import large_json
from openseer_core.wire.batches import MAX_METADATA_BYTES, GroupsUpload
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job

JSON = {"Content-Type": "application/json"}
LINES = {"Content-Type": "application/x-ndjson"}
WRONG = [
    ('{"metadata": {"a": 1, "a": 2}}', "metadata.a: found twice"),
    ('{"metadata": {"a": NaN}}', "metadata.a: found NaN"),
    ('{"metadata": {"a": [1e999]}}', "metadata.a[0]: found 1e999"),
    ('{"metadata": {"a": "\\ud800"}}', "half of a character"),
    ('{"metadata": {"\\udfff": 1}}', "half of a character"),
    ('{"metadata": {"a": ' + "[" * 200 + "]" * 200 + "}}", "nested too deeply"),
    ('{"metadata": {"a": "' + "é" * MAX_METADATA_BYTES + '"}}', f"allowed: {MAX_METADATA_BYTES}"),
    ('{"max_staleness": 99999999999999999999999}', "max_staleness"),
]


@cache
def transport() -> httpx.ASGITransport:
    return httpx.ASGITransport(create_app(OneJob(JobContext(serving_job(), MemoryStore())), BearerAuth(TOKEN)))


def client(kind: str = "application/json") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
    return httpx.AsyncClient(transport=transport(), base_url="http://server", headers=headers)


@pytest.mark.parametrize(("text", "why"), WRONG)
async def test_a_batch_is_refused_with_the_place(text: str, why: str) -> None:
    async with client() as caller:
        refused = await caller.post("/v1/batches", content=text)
        assert refused.status_code == 422
        assert why in refused.json()["detail"]


@pytest.mark.parametrize(("text", "why"), [case for case in WRONG if "staleness" not in case[0]])
async def test_a_group_is_refused_with_its_line_or_name(text: str, why: str) -> None:
    async with client("application/x-ndjson") as caller:
        opened = await caller.post("/v1/batches", content="{}", headers=JSON)
        path = f"/v1/batches/{opened.json()['id']}/groups"
        line = text.replace('{"metadata"', '{"id": "g", "prompt_token_ids": [5], "metadata"', 1)
        for content, headers in (("\n" + line, LINES), ('{"groups": [' + line + "]}", JSON)):
            refused = await caller.post(path, content=content, headers=headers)
            assert refused.status_code == 422
            assert why in refused.json()["detail"]
            assert any(place in refused.json()["detail"] for place in ("line 2", "groups[0]", "body: ", "group g"))
        assert (await caller.get(path)).json()["groups"] == []


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("/generate", '{"text": []}', "0 prompts"),
        ("/generate", '{"input_ids": []}', "no tokens"),
        ("/generate", '{"text": ["a", "\\ud83d"]}', "half of a character"),
        ("/generate", '{"input_ids": [[1]], "sampling_params": {"temperature": Infinity}}', "found Infinity"),
        ("/v1/completions", '{"prompt": [], "max_tokens": 1}', "0 prompts"),
        ("/v1/completions", '{"prompt": [5], "min_tokens": 9, "max_tokens": 3}', "allowed: at most max_tokens (3)"),
        ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "\\udc00"}]}', "half of a character"),
        ("/inference/v1/generate", '{"token_ids": [5], "token_ids": [6]}', "token_ids: found twice"),
        ("/update_weights_from_disk", '{"model_path": ""}', "model_path"),
        ("/update_weights_from_disk", '{"model_path": "' + "x" * 5000 + '"}', "model_path"),
        ("/update_weights", '{"weight_dir": ""}', "weight_dir"),
        ("/update_weights", '{"weight_dir": "' + "x" * 5000 + '"}', "weight_dir"),
        ("/init_weight_transfer_engine", '{"init_info": {"a": NaN}}', "found NaN"),
    ],
)
async def test_the_protocols_refuse_it_with_400(path: str, text: str, why: str) -> None:
    async with client() as caller:
        refused = await caller.post(path, content=text)
        assert refused.status_code == 400
        assert why in refused.json()["error"]["message"]


async def test_many_prompts_of_one_call_count_together() -> None:
    async with client() as caller:
        refused = await caller.post("/generate", json={"input_ids": [[5]] * 4097})
        assert refused.status_code == 400
        assert "allowed: 1 to 4096" in refused.json()["error"]["message"]


async def test_large_bodies_are_read_in_steps_with_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "MOST_VALUES", 10)
    many = ", ".join(["[]"] * (THREAD_BYTES // 4 + 1))
    async with client() as caller:
        refused = await caller.post("/generate", content='{"input_ids": [' + many + "]}")
        assert refused.status_code == 400
        assert "more than 10 keys, texts, lists and maps" in refused.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["Application/X-NDJSON", "application/x-ndjson; charset=utf-8", "APPLICATION/JSON"])
async def test_an_uploads_content_type_is_case_insensitive(kind: str) -> None:
    group: dict[str, Any] = {"id": "g", "prompt_token_ids": [5]}
    async with client(kind) as caller:
        opened = await caller.post("/v1/batches", content="{}", headers=JSON)
        path = f"/v1/batches/{opened.json()['id']}/groups"
        body = json.dumps({"groups": [group]} if "json" in kind.lower().partition("nd")[0] else group)
        assert (await caller.post(path, content=body)).json() == {"accepted": 1, "present": 0}


@pytest.mark.parametrize("size", [1, THREAD_BYTES])
async def test_a_large_upload_is_checked_in_a_thread(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop: list[bool] = []

    class Noting(GroupsUpload):
        @model_validator(mode="after")
        def note(self) -> "Noting":
            on_loop.append(current_thread() is main_thread())
            return self

    monkeypatch.setattr(groups, "GroupsUpload", Noting)
    async with client() as caller:
        batch = (await caller.post("/v1/batches", json={})).json()["id"]
        content = json.dumps({"groups": [{"id": "g", "prompt_token_ids": [5]}]}) + " " * size
        assert (await caller.post(f"/v1/batches/{batch}/groups", content=content)).status_code == 200
    assert on_loop == [size == 1]


async def test_parsing_stops_at_a_list_longer_than_any_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_json, "MOST_NUMBERS", 1000)
    ids = "[" + "12345," * (THREAD_BYTES // 6 + 1) + "x]"
    async with client() as caller:
        batch = (await caller.post("/v1/batches", json={})).json()["id"]
        for path, body in (("/generate", '{"input_ids": '), (f"/v1/batches/{batch}/groups", '{"groups": ')):
            refused = await caller.post(path, content=body + ids)
            assert "more than 1000 entries, the limit of one list" in refused.text


@pytest.mark.parametrize("size", [1, THREAD_BYTES])
@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/generate", {"input_ids": [[5], [6, "x"]]}, "input_ids"),
        ("/v1/completions", {"prompt": [[5], [6, "x"]]}, "prompt"),
        ("/v1/chat/completions", {"messages": [{"role": 5}]}, "messages.0.role"),
        ("/inference/v1/generate", {"token_ids": [5, None]}, "token_ids.1"),
    ],
)
async def test_a_body_of_any_size_is_refused_with_its_field(
    path: str, body: dict[str, object], place: str, size: int
) -> None:
    async with client() as caller:
        refused = await caller.post(path, json=body | {"user": "x" * size})
        assert refused.status_code == 400
        assert place in refused.json()["error"]["message"]


async def test_the_404_of_an_unknown_path_links_to_the_routes() -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport(), base_url="http://api", headers=headers) as client:
        for path in ("/models", "/v1/nowhere"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert "an OpenAI client's base URL ends in /v1" in answer.text
