"""LoRA adapters on the routes of weights and batches: publish, name, replace, remove, refuse."""

import asyncio
from pathlib import Path
from typing import Any

from tests.api.adapting import adapting, ready
from tests.api.served import Served, results, served
from tests.worker.weights.adapters import write_adapter
from tests.worker.weights.made import write_weights

GROUPS = [{"id": f"g{number}", "prompt_token_ids": [1, 2, 3 + number]} for number in range(2)]


async def publish(server: Served, folder: Path, version: str, name: str, **more: Any) -> dict[str, Any]:
    """Publishes an adapter of that content, and waits until it is served."""
    path = str(write_adapter(folder / version, version))
    what = {"version": version, "source": {"path": path}, "adapter": {"name": name}, "mode": "keep"} | more
    await server.call("POST", "/weights", what, status=202)
    while True:
        weights = await server.call("GET", "/weights")
        if weights["transaction"]["phase"] in ("done", "failed"):
            return weights
        await asyncio.sleep(0.02)


async def sampled(server: Served, batch: int) -> set[str]:
    """The versions that sampled a whole batch."""
    whole = results(await server.until_complete(batch))
    assert len(whole) == 8
    assert {item["status"] for item in whole} == {"ok"}
    return {span["version"] for item in whole for span in item["versions"]}


async def test_a_batch_that_names_an_adapter_is_sampled_by_it_alone(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        weights = await publish(server, tmp_path, "a1", "math")
        assert [(entry["name"], entry["version"], entry["base"]) for entry in weights["adapters"]] == [
            ("math", "a1", "initial")
        ]
        assert weights["adapters"][0]["digest"]
        assert weights["version"] == "initial"
        await publish(server, tmp_path, "b1", "code")
        wanted = {"a1": {"adapter": "math"}, "b1": {"weights_version": "b1"}, "initial": {}}
        batches = {version: await server.open(**spec) for version, spec in wanted.items()}
        for batch in batches.values():
            await server.upload(batch, GROUPS, seal=True)
        for version, batch in batches.items():
            assert await sampled(server, batch) == {version}


async def test_a_batch_follows_its_adapter_and_a_pinned_one_does_not(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        await publish(server, tmp_path, "a1", "math")
        following, pinned = await server.open(adapter="math"), await server.open(weights_version="a1")
        weights = await publish(server, tmp_path, "a2", "math")
        assert weights["adapters"][0]["versions"] == ["a1", "a2"]
        await server.upload(following, GROUPS, seal=True)
        assert await sampled(server, following) == {"a2"}
        lines = {"groups": GROUPS}
        refused = await server.call("POST", f"/batches/{pinned}/groups", lines, status=409)
        assert "opened for weights a1, but the fleet now serves a2" in refused["detail"]


async def test_unfinished_requests_of_a_removed_adapter_are_aborted(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        await publish(server, tmp_path, "a1", "math")
        batch = await server.open(adapter="math", sampling={"maxTokens": 20_000, "ignoreEos": True})
        await server.upload(batch, GROUPS)
        assert (await server.call("DELETE", "/weights/adapters/math"))["adapters"] == []
        await server.call("POST", f"/batches/{batch}/seal")
        whole = results(await server.until_complete(batch))
        assert [item["status"] for item in whole] == ["aborted"] * 8
        await server.call("DELETE", "/weights/adapters/math", status=404)
        refused = await server.call("POST", "/batches", {"adapter": "math"}, status=409)
        assert "adapter: found math; the fleet has no adapters" in refused["detail"]


async def test_an_adapter_without_a_slot_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = str(write_adapter(tmp_path / "a"))
    what = {"version": "a1", "source": {"path": path}, "adapter": {"name": "math"}}

    async def refused(server: Served, status: int = 409, **more: Any) -> str:
        return str((await server.call("POST", "/weights", what | more, status=status))["detail"])

    async with served() as server:
        assert "set spec.model.lora in its manifest" in await refused(server)
    async with served(job=adapting(maxAdapters=1)) as server:
        await ready(server)
        assert "adapter.base: found v0, the fleet has initial" in await refused(
            server, adapter={"name": "m", "base": "v0"}
        )
        assert "which is the model's own name" in await refused(server, 422, adapter={"name": "served"})
        await refused(server, 422, source={"transfer": {"update": {}}})
        await publish(server, tmp_path, "a1", "math")
        full = await refused(server, version="b1", adapter={"name": "code"})
        assert "allowed: 1 (spec.model.lora.maxAdapters); remove one" in full
        assert "weights a1 were published before" in await refused(server)
        carried = await server.call("POST", "/batches", {"adapter": "math", "carry": True}, status=409)
        assert "groups of an adapter are not carried over" in carried["detail"]
        write_adapter(tmp_path / "big", rank=8)
        failed = await publish(server, tmp_path, "a2", "math", source={"path": str(tmp_path / "big")})
        assert "found rank 8, allowed: at most 4" in failed["transaction"]["message"]
        assert failed["adapters"][0]["version"] == "a1"


async def test_new_base_weights_remove_the_old_adapters(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        await publish(server, tmp_path, "a1", "math")
        write_weights(tmp_path / "v1", "v1")
        source = {"path": str(tmp_path / "v1")}
        await server.call("POST", "/weights", {"version": "v1", "source": source, "mode": "keep"}, status=202)
        while (weights := await server.call("GET", "/weights"))["transaction"]["phase"] != "done":
            await asyncio.sleep(0.02)
        assert (weights["version"], weights["adapters"]) == ("v1", [])
        refused = await server.call("POST", "/batches", {"weights_version": "a1"}, status=409)
        assert "weights_version: found a1; the fleet has v1" in refused["detail"]
