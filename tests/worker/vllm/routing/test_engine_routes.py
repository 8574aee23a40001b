"""The real engine returns the experts of each token, equal to plain torch's, for every kind of generation."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Parallelism, Sampling
from openseer_core.routed_rows import RowShape
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftTokens, EngineRequest, NewWeights
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, VOCABULARY, drafting_player, feed, metric
from tests.worker.player import GREEDY, Player, Response, model
from tests.worker.vllm.routing.moe_model import CHOSEN, EXPERTS, LAYERS, experts_of, replayed_scores

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

PROMPTS = [[(7 * position + 5 * number) % 90 + 4 for position in range(70)] for number in range(5)]
WHOLE = 120
ROOM = {"num_gpu_blocks_override": 65, "max_num_batched_tokens": 48}
"""For all prompts at once, in steps so small that prompts come in pieces."""
SHAPE = RowShape(LAYERS, CHOSEN, 1)


def request(
    prompt: int, rows_from: int | None, length: int = WHOLE, tokens: list[int] | None = None, group: str = ""
) -> EngineRequest:
    name = NAMES.new()
    return EngineRequest(name, group or name, 0, PROMPTS[prompt], tokens or [], length, GREEDY, rows_from=rows_from)


def rows(response: Response, count: int, first: int = 0) -> NDArray[np.int64]:
    """Rows of positions `first` to `count`, each in rising order; -1 for missing ones. A later row replaces an earlier
    one."""
    found = np.full((count, LAYERS, CHOSEN), -1, np.int64)
    for start, data in response.routes:
        assert start >= first
        piece = np.frombuffer(data, np.uint8).reshape(-1, LAYERS, CHOSEN)[: max(0, count - start)]
        found[start : start + len(piece)] = np.sort(piece)
    return found[first:]


def assert_routed(moe_folder: Path, prompt: int, response: Response, first: int = 0, before: list[int] = []) -> None:  # noqa: B006
    tokens = PROMPTS[prompt] + before + response.tokens
    truth = experts_of(moe_folder, tokens)[first : len(tokens) - 1]
    np.testing.assert_array_equal(rows(response, len(tokens) - 1, first), truth)


@pytest.fixture(scope="module")
def plain(moe_folder: Path) -> Iterator[list[Response]]:
    """Whole responses of an engine that captures and does not draft."""
    engine = VllmEngine(model(moe_folder, **ROOM), Parallelism(), Sampling(), cache_salt="plain", routes=True)
    try:
        assert engine.profile.routing == SHAPE
        assert engine.metrics()["drafts"] == "off: it was not enabled"
        yield Player(engine).run(*(request(number, 0) for number in range(len(PROMPTS))))
    finally:
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def player(moe_folder: Path, plain: list[Response]) -> Iterator[Player]:
    assert plain
    arguments = model(moe_folder, **ROOM).engine_args
    with drafting_player(moe_folder, engine_args=arguments, routes=True) as player:
        yield player


def test_without_drafts_only_the_last_tokens_row_is_missing(moe_folder: Path, plain: list[Response]) -> None:
    for number, response in enumerate(plain):
        assert len(response.tokens) == WHOLE
        assert_routed(moe_folder, number, response)


def test_torch_agrees_with_the_engine_only_with_the_same_experts(moe_folder: Path, plain: list[Response]) -> None:
    for number, response in enumerate(plain[:2]):
        tokens, first = PROMPTS[number] + response.tokens, len(PROMPTS[number]) - 1
        routed = rows(response, len(tokens) - 1)[:, 1:]
        same = replayed_scores(moe_folder, tokens, routed)[first:]
        assert np.abs(same - response.logprobs).max() < 1e-3
        other = replayed_scores(moe_folder, tokens, (routed + 1) % EXPERTS)[first:]
        assert np.abs(other - response.logprobs).max() > 0.1


def test_right_wrong_and_mixed_drafts_change_no_row(moe_folder: Path, player: Player, plain: list[Response]) -> None:
    right, wrong, mixed = NAMES.new(), NAMES.new(), NAMES.new()
    some = [token if place % 5 else (token + 1) % VOCABULARY for place, token in enumerate(plain[1].tokens)]
    feed(
        player,
        tokens=[
            DraftTokens(right, 1, 0, pack_tokens(plain[0].tokens)),
            DraftTokens(mixed, 1, 0, pack_tokens(some)),
            DraftTokens(wrong, 1, 0, pack_tokens([(token + 1) % VOCABULARY for token in plain[2].tokens])),
        ],
    )
    accepted, drafted = metric(player, "accepted_siblings"), metric(player, "drafted_siblings")
    works = [request(number, 0, group=group) for number, group in enumerate((right, mixed, wrong, "", ""))]
    for number, response in enumerate(player.run(*works)):
        assert response.tokens == plain[number].tokens
        assert_routed(moe_folder, number, response)
    assert metric(player, "accepted_siblings") > accepted + WHOLE / 2
    assert metric(player, "drafted_siblings") - drafted > metric(player, "accepted_siblings") - accepted


def test_rows_of_a_cached_prompt_are_returned_on_request(moe_folder: Path, player: Player) -> None:
    player.run(request(3, None, 8))
    without, cached, whole = player.run(request(3, None, 8), request(3, len(PROMPTS[3]) - 1, 8), request(3, 0, 8))
    assert without.routes == []
    assert_routed(moe_folder, 3, cached, len(PROMPTS[3]) - 1)
    assert_routed(moe_folder, 3, whole)


def test_chunks_have_the_rows_from_their_first_token_on(moe_folder: Path, player: Player) -> None:
    tokens: list[int] = []
    for end in (30, 31, 90):
        first = len(PROMPTS[4]) + len(tokens) - 1
        response = player.run(request(4, first, end, tokens))[0]
        assert_routed(moe_folder, 4, response, first, tokens)
        tokens += response.tokens


def test_an_aborted_response_has_the_rows_of_its_tokens(moe_folder: Path, player: Player) -> None:
    work = request(2, 0, 180)
    response = player.add(work)
    while len(response.tokens) < 20:
        player.poll()
        time.sleep(0.001)
    player.engine.abort(work.key)
    while response.finish is None:
        player.poll()
        time.sleep(0.001)
    assert_routed(moe_folder, 2, response)


def test_an_engine_in_its_own_process_returns_the_same_rows(moe_folder: Path, player: Player) -> None:
    child = model(moe_folder, **ROOM).model_copy(update={"engine_process": "child"})
    engine = VllmEngine(child, Parallelism(), Sampling(), cache_salt="child", routes=True)
    try:
        for number, response in enumerate(Player(engine).run(request(0, 0, 40), request(1, len(PROMPTS[1]) - 1, 40))):
            assert_routed(moe_folder, number, response, number * (len(PROMPTS[1]) - 1))
    finally:
        asyncio.run(engine.close())


def test_reloaded_experts_compute_as_at_the_start(moe_folder: Path, player: Player) -> None:
    first = asyncio.run(player.engine.score(PROMPTS[0]))
    for number in range(2):
        asyncio.run(player.engine.load_weights(NewWeights(f"job@{number}", moe_folder)))
        assert asyncio.run(player.engine.score(PROMPTS[0])) == first


def test_a_model_without_experts_is_refused(folder: Path, player: Player) -> None:
    with pytest.raises(ModelError, match=r"spec\.routing\.capture: the model .* has no experts; remove spec\.routing"):
        VllmEngine(model(folder), Parallelism(), Sampling(), cache_salt="dense", routes=True)
