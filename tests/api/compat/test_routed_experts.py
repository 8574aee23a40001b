"""Routed experts in answers of vLLM's routes, in the form that vLLM's own server gives them."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest

from openseer_api.job.rows import RowsUnavailable
from openseer_core.queue.messages import Result
from openseer_core.routed_rows import RowShape
from openseer_core.tokens import count_items
from openseer_store.routed.assembly import RoutedExperts
from tests.api.compat.stories import PROMPT, post
from tests.api.served import served

TOKENS = 6
COUNT = len(PROMPT) + TOKENS - 1
LENGTH = {"max_tokens": TOKENS, "min_tokens": TOKENS, "n": 2}
CALLS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": PROMPT, **LENGTH},
    "/inference/v1/generate": {"token_ids": PROMPT, "sampling_params": LENGTH},
}


class Rows:
    """Rows that contain their positions; the second response of a group lacks one. None: no rows are available."""

    def __init__(self, missing: tuple[tuple[int, int], ...] | None = ((2, 3),)) -> None:
        self.missing = missing

    async def find(self, result: Result) -> RoutedExperts:
        if self.missing is None:
            raise RowsUnavailable("nobody has the rows")
        count = count_items(result.prompt) + count_items(result.tokens) - 1
        rows = bytes(place for place in range(count) for _ in range(2))
        return RoutedExperts(count, rows, RowShape(1, 2, 1), self.missing if result.request.index else ())


def array(choice: dict[str, Any]) -> Any:
    return np.load(io.BytesIO(base64.b64decode(choice["routed_experts"])))


@pytest.mark.parametrize("path", CALLS)
async def test_each_choice_has_an_array_and_a_gap_is_marked(path: str) -> None:
    async with served() as server:
        server.context.rows = Rows()
        choices = (await post(server, path, CALLS[path]))["choices"]
        whole, lacking = (array(choice) for choice in sorted(choices, key=lambda choice: choice["index"]))
        assert (whole.shape, whole.dtype, lacking.dtype) == ((COUNT, 1, 2), np.uint8, np.int32)
        assert whole[:, 0, 0].tolist() == list(range(COUNT))
        assert lacking[:, 0, 1].tolist() == [0, 1, -1, *range(3, COUNT)]


@pytest.mark.parametrize("path", CALLS)
async def test_no_capture_gives_no_array_and_missing_rows_give_no_answer(path: str) -> None:
    async with served() as server:
        assert "routed_experts" not in (await post(server, path, CALLS[path]))["choices"][0]
        server.context.rows = Rows(None)
        assert "nobody has the rows" in json.dumps(await post(server, path, CALLS[path], status=503))


async def test_a_stream_of_tokens_has_the_experts_in_its_last_chunk() -> None:
    async with served() as server:
        server.context.rows = Rows(())
        path = "/inference/v1/generate"
        answer = await server.http.post(path, json={**CALLS[path], "stream": True})
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        choices = [choice for event in events for choice in json.loads(event)["choices"]]
        ends = [choice for choice in choices if choice.get("finish_reason")]
        assert [array(choice).shape for choice in ends] == [(COUNT, 1, 2)] * 2
        assert sum("routed_experts" in choice for choice in choices) == 2
