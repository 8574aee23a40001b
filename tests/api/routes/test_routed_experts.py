"""Results contain routed experts from the files of their leases; an acknowledged batch's files are deleted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from openseer_api.http.rendering import render_result
from openseer_api.job.rows import RowsInFolder, RowsUnavailable
from openseer_client.routing.arrays import routed_experts
from openseer_core.ids import GroupId
from openseer_core.manifest.job import Sampling
from openseer_core.manifest.sampling_json import dump_sampling
from openseer_core.queue.messages import Result
from openseer_core.wire.results import ResultItem
from openseer_store.routed.assembly import RoutedExperts, assemble
from openseer_store.routed.folders import row_batches
from openseer_store.routed.removal import remove_rows
from tests.api.served import prompts, results, served
from tests.store.routed.test_assembly import chunk, lease, put, put_prompt, result, rows


def test_a_rendered_result_has_the_array_that_the_client_reads(tmp_path: Path) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 1)))
    about = '{"metadata": {}, "template_hash": null}'
    found = replace(result(3, chunk(0, 3, 1)), metadata=about, sampling=dump_sampling(Sampling()))
    item = ResultItem.model_validate(render_result(found, None, assemble(tmp_path, found)))
    assert item.routed_experts is not None
    assert (item.routed_experts.gaps, item.routed_experts.missing) == (2, [(4, 6)])
    np.testing.assert_array_equal(routed_experts(item)[:, 0, 0], [0, 1, 2, 3, -1, -1])
    assert ResultItem.model_validate(render_result(found, None)).routed_experts is None


async def test_rows_stay_until_their_batch_is_acknowledged(tmp_path: Path) -> None:
    async with served() as server:
        server.context.rows = RowsInFolder(tmp_path)
        batch = await server.open()
        await server.upload(batch, prompts(1), seal=True)
        put(tmp_path, "x", (0, rows(0, 1)), group=GroupId(batch, "g"))
        items = await server.until_complete(batch)
        first = ResultItem.model_validate(results(items)[0])
        assert first.routed_experts is not None
        assert first.routed_experts.gaps == len(first.prompt_token_ids) + len(first.token_ids) - 1
        assert (routed_experts(first) == -1).all()
        await remove_rows(server.store, tmp_path)
        assert row_batches(tmp_path) == [batch]
        await server.call("POST", f"/batches/{batch}/acknowledge", {"cursor": items[-1]["cursor"]})
        await remove_rows(server.store, tmp_path)
        assert row_batches(tmp_path) == []


class Away:
    """Rows of `left` results are found; later reads fail."""

    def __init__(self, folder: Path, left: int) -> None:
        self.folder = folder
        self.left = left

    async def find(self, result: Result) -> RoutedExperts:
        if not self.left:
            raise RowsUnavailable("nobody has the rows")
        self.left -= 1
        return assemble(self.folder, result)


async def test_no_result_is_returned_while_its_rows_are_unavailable(tmp_path: Path) -> None:
    async with served() as server:
        batch = await server.open()
        await server.upload(batch, prompts(1), seal=True)
        items = await server.until_complete(batch)
        server.context.rows = away = Away(tmp_path, 2)
        path = f"/batches/{batch}/results"
        page = await server.call("GET", path)
        assert (page["items"][-1]["cursor"], page["cursor"], page["complete"]) == (2, 2, False)
        refusal = await server.call("GET", path, params={"cursor": 2}, status=503)
        assert refusal["detail"] == "nobody has the rows"
        lines = (await server.http.get(f"/v1{path}", headers={"Accept": "application/x-ndjson"})).text.splitlines()
        assert json.loads(lines[-1]) | {"kind": "error", "cursor": 0, "status": 503} == json.loads(lines[-1])
        away.left = 10
        rest = await server.call("GET", path, params={"cursor": 2})
        assert [item["cursor"] for item in page["items"] + rest["items"]] == [item["cursor"] for item in items]
        assert rest["complete"]
