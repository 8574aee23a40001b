"""The spans of a served job's batches, requests and weights are children of its callers' spans."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from openseer_core.traces.span import TraceSpan
from openseer_core.traces.traceparent import TraceParent
from tests.api.served import Served, prompts, served
from tests.worker.weights.made import write_weights

CALLER = TraceParent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)
CALLED = {"traceparent": str(CALLER)}


class Taken:
    """A receiver that keeps its spans."""

    def __init__(self) -> None:
        self.spans: list[TraceSpan] = []

    def give(self, spans: Iterable[TraceSpan]) -> None:
        self.spans += spans

    def named(self, name: str) -> list[TraceSpan]:
        """Spans of that name."""
        return [span for span in self.spans if span.name == name]


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.02)


async def opened(server: Served, headers: dict[str, str], *, status: int = 201) -> int:
    return int((await server.call("POST", "/batches", {}, status=status, headers=headers))["id"])


async def test_a_batch_and_its_requests_are_below_the_trainers_span() -> None:
    taken = Taken()
    async with served(spans=taken) as server:
        number = await opened(server, CALLED)
        await server.upload(number, prompts(2), seal=True)
        items = await server.until_complete(number)
        await server.call("POST", f"/batches/{number}/acknowledge", {"cursor": items[-1]["cursor"]})
    [batch], requests = taken.named("batch"), taken.named("request")
    assert (batch.trace_id, batch.parent_id) == (CALLER.trace_id, CALLER.span_id)
    assert batch.attributes["openseer.requests"] == len(requests) == 8
    assert {(span.trace_id, span.parent_id) for span in requests} == {(batch.trace_id, batch.span_id)}
    assert all(batch.start <= span.start <= span.end <= batch.end for span in requests)
    told = {(span.attributes["openseer.group"], span.attributes["openseer.index"]): span for span in requests}
    for item in items:
        if item["kind"] == "result":
            span = told[item["group"], item["index"]]
            assert span.attributes["gen_ai.usage.output_tokens"] == len(item["token_ids"])


async def test_results_read_twice_give_one_span() -> None:
    taken = Taken()
    async with served(spans=taken) as server:
        number = await server.open()
        await server.upload(number, prompts(2), seal=True)
        await server.until_complete(number)
        await server.until_complete(number)
    assert (len(taken.named("request")), len(taken.named("batch"))) == (8, 1)


async def test_a_new_replica_reads_the_trainers_span_from_the_store() -> None:
    async with served() as first:
        number = await opened(first, CALLED)
        await first.upload(number, prompts(1), seal=True)
        await first.until_complete(number)
        taken = Taken()
        async with Served(first.job, first.store, spans=taken) as second:
            await second.until_complete(number)
    assert {span.trace_id for span in taken.spans} == {CALLER.trace_id}


async def test_a_repeat_with_another_span_is_the_same_batch() -> None:
    taken = Taken()
    async with served(spans=taken) as server:
        first = await opened(server, CALLED | {"Idempotency-Key": "step-1"})
        other = str(TraceParent(7, 8))
        again = await opened(server, {"Idempotency-Key": "step-1", "traceparent": other}, status=200)
        assert first == again
        await server.upload(first, prompts(1), seal=True)
        await server.until_complete(first)
    assert {span.trace_id for span in taken.spans} == {CALLER.trace_id}


@pytest.mark.parametrize("field", ["00-zz", "\xff\xfe", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "a" * 10_000])
async def test_a_malformed_span_is_ignored_and_the_batch_opened(field: str) -> None:
    taken = Taken()
    async with served(spans=taken) as server:
        headers = {"traceparent": field.encode("latin-1")}
        number = (await server.call("POST", "/batches", {}, status=201, headers=headers))["id"]
        await server.upload(number, prompts(1), seal=True)
        await server.until_complete(number)
    [batch] = taken.named("batch")
    assert batch.parent_id == 0


async def test_the_callers_span_does_not_change_the_responses() -> None:
    texts = list[Any]()
    for headers in ({}, CALLED):
        async with served(spans=Taken()) as server:
            number = await opened(server, headers)
            await server.upload(number, prompts(2), seal=True)
            items = await server.until_complete(number)
            texts.append({(item["group"], item.get("index")): item.get("token_ids") for item in items})
    assert texts[0] == texts[1]


async def test_a_request_of_a_compatible_route_is_below_its_call() -> None:
    taken = Taken()
    async with served(spans=taken) as server:
        body = {"model": "none", "prompt": [5, 6, 7], "max_tokens": 8}
        for headers in (CALLED, {}):
            answer = await server.http.post("/v1/completions", json=body, headers=headers)
            assert answer.status_code == 200, answer.text
    called, alone = taken.named("request")
    assert (called.trace_id, called.parent_id) == (CALLER.trace_id, CALLER.span_id)
    assert alone.parent_id == 0
    assert alone.trace_id != called.trace_id


async def test_the_span_of_a_deleted_batch_has_its_counts() -> None:
    taken = Taken()
    async with Served(spans=taken) as server:  # without workers
        number = await server.open()
        await server.upload(number, prompts(1))
        await server.call("DELETE", f"/batches/{number}", status=204)
    [batch] = taken.named("batch")
    assert (batch.attributes["openseer.requests"], batch.attributes["openseer.ok"]) == (4, 0)


async def test_a_weights_transaction_gives_a_span_at_its_end(tmp_path: Path) -> None:
    write_weights(tmp_path, "v2")
    taken = Taken()
    async with served(spans=taken) as server:
        await server.call("POST", "/weights", {"version": "v2", "source": {"path": str(tmp_path)}}, status=202)
        await until(lambda: taken.named("weights"))
        await server.call("GET", "/weights")
    [whole] = taken.named("weights")
    assert whole.attributes["openseer.weights_version"] == "v2"
    assert (whole.error, whole.parent_id) == ("", 0)
    phases = [span for span in taken.spans if span.name.startswith("weights ")]
    assert phases
    assert {span.parent_id for span in phases} == {whole.span_id}


async def test_the_span_of_a_rolled_back_weights_transaction_is_an_error(tmp_path: Path) -> None:
    write_weights(tmp_path, "v2")
    taken = Taken()
    async with served(spans=taken, held=True) as server:
        number = await server.open()
        await server.upload(number, prompts(2), seal=True)
        await server.until_sampled(number)
        await server.call("POST", "/weights", {"version": "v2", "source": {"path": str(tmp_path)}}, status=202)
        await server.call("POST", "/weights/abort")
        await until(lambda: taken.named("weights"))
    [whole] = taken.named("weights")
    assert whole.attributes["error.type"] == "failed"
