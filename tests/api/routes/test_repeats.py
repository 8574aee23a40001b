"""A repeated call has the same effect once or is refused: keys, turns, cursors; checks of a group's sampling."""

from typing import Any

import pytest

from openseer_core.weights.fleet_spec import FleetSpec
from openseer_store.memory import MemoryStore
from tests.api.served import Served, prompts, results, served

KEY = {"Idempotency-Key": "run/step-1"}


async def refusal(server: Served, method: str, path: str, body: Any = None, *, status: int = 409, **more: Any) -> str:
    return str((await server.call(method, path, body, status=status, **more))["detail"])


async def test_a_key_with_another_body_is_refused_by_the_fields_that_differ() -> None:
    async with Served() as server:
        spec = {"group_size": 2, "metadata": {"a": 1, "b": 2}}
        first = await server.call("POST", "/batches", spec, status=201, headers=KEY)
        again = {"metadata": {"b": 2, "a": 1}, "group_size": 2, "purpose": "train"}
        assert (await server.call("POST", "/batches", again, headers=KEY))["id"] == first["id"]
        why = await refusal(server, "POST", "/batches", {"group_size": 3, "metadata": {}}, headers=KEY)
        assert f"batch {first['id']}" in why
        assert "group_size, metadata" in why
        await server.call("DELETE", f"/batches/{first['id']}", status=204)
        await refusal(server, "POST", "/batches", {}, headers=KEY)
        assert (await server.call("POST", "/batches", spec, headers=KEY))["state"] == "acknowledged"


async def test_a_key_finds_its_batch_when_the_fleet_has_other_weights() -> None:
    store = MemoryStore()
    async with Served(store=store) as server:
        spec = {"weights_version": "initial"}
        first = await server.call("POST", "/batches", spec, status=201, headers=KEY)
        before = await store.fleet_spec()
        moved: FleetSpec = before.changed(version="next", versions=(*before.versions, "next"))
        assert await store.swap_fleet_spec(moved)
        assert (await server.call("POST", "/batches", spec, headers=KEY))["id"] == first["id"]
        await refusal(server, "POST", "/batches", spec | {"group_size": 9}, headers=KEY)
        await refusal(server, "POST", "/batches", spec, headers={"Idempotency-Key": "other"})
        await refusal(server, "POST", "/batches", spec)


async def test_a_turn_is_continued_once_with_the_same_tokens() -> None:
    async with served() as server:
        batch = await server.open(group_size=1, sampling={"maxTokens": 400})
        await server.upload(batch, prompts(1))
        path = f"/batches/{batch}/groups/g0/requests/0"
        await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 60})
        for turn, tokens in enumerate(([3, 4], [])):
            body = {"turn": turn, "token_ids": tokens}
            await server.call("POST", f"{path}/continue", body)
            await server.call("POST", f"{path}/continue", body)
            other = body | {"token_ids": [9, 9]}
            assert "was continued with other tokens before" in await refusal(server, "POST", f"{path}/continue", other)
            page: dict[str, Any] = {"items": []}
            while len(results(page["items"])) < turn + 2:
                page = await server.call("GET", f"/batches/{batch}/results", params={"wait_seconds": 5})
        await refusal(server, "POST", f"{path}/continue", {"turn": 0, "token_ids": [3, 4]})
        assert (await server.call("GET", path))["turn"] == 2


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson", "text/event-stream"])
async def test_a_cursor_past_the_end_is_refused_with_the_last_one(accept: str) -> None:
    async with Served() as server:
        batch = await server.open()
        path, headers = f"/batches/{batch}/results", {"Accept": accept}
        assert "the batch's last is 0" in await refusal(server, "GET", path, params={"cursor": 1}, headers=headers)
        if accept == "text/event-stream":
            headers["Last-Event-ID"] = "7"
            why = await refusal(server, "GET", path, headers=headers)
            assert why == "Last-Event-ID: found 7; the batch's last is 0"


async def test_a_cursor_that_the_store_lost_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def base(_: MemoryStore) -> int:
        return 4096

    monkeypatch.setattr(MemoryStore, "base", base)
    async with Served() as server:
        batch = await server.open()
        page = await server.call("GET", f"/batches/{batch}/results", params={"cursor": 5})
        assert page == {"items": [], "cursor": 5, "complete": False}


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        ({"forceLengths": True}, "sampling.forceLengths: not allowed here"),
        ({"logprobs": "raw"}, "sampling.logprobs: found raw, allowed in this job: sampled or none"),
        ({"minTokens": 9, "maxTokens": 3}, "sampling.minTokens: found 9, allowed: at most maxTokens (3)"),
    ],
)
async def test_a_groups_sampling_is_checked_as_a_batchs(sampling: dict[str, Any], why: str) -> None:
    async with Served() as server:
        assert why in await refusal(server, "POST", "/batches", {"sampling": sampling}, status=422)
        path = f"/batches/{await server.open()}/groups"
        body = {"groups": prompts(1, sampling=sampling)}
        assert f"group g0: {why}" in await refusal(server, "POST", path, body, status=422)
