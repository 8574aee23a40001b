"""Real engines with a pool in Mooncake's store: moved responses equal the unmoved ones, also after failures of the
store."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftTokens, NewWeights
from openseer_worker.kv_pool import breaker, rates
from openseer_worker.kv_pool.mooncake.client import MooncakeBlocks
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, drafting_player, feed, metric
from tests.worker.kv_pool.mooncake.pool import Pool, running, why_not
from tests.worker.kv_pool.waiting import eventually, stop
from tests.worker.player import Player, Response, model
from tests.worker.vllm.kv_pool.moving import BLOCK, CHUNK, PROMPTS, ROOM, SALT, WHOLE, plain_engine, request

pytestmark = [
    pytest.mark.engine,
    # Two engines, and vLLM's import on a busy machine.
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]


@pytest.fixture(scope="module", autouse=True)
def _tried_at_once() -> Iterator[None]:
    """Always fetches, also if computing is faster, as often for so small a model, and soon after a failure."""
    before = rates.TRIAL_EVERY, breaker.OUT_SECONDS
    rates.TRIAL_EVERY, breaker.OUT_SECONDS = 1, 0.1
    yield
    rates.TRIAL_EVERY, breaker.OUT_SECONDS = before


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with running(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


@pytest.fixture(scope="module")
def whole(folder: Path, pool: Pool) -> list[Response]:
    """Unmoved responses; their engine's blocks are in the pool."""
    engine_pool = EnginePool("mooncake", master=pool.master)
    engine = plain_engine(folder, engine_pool)
    try:
        requests = [request(number, [], WHOLE, f"0/v/{number}") for number in range(len(PROMPTS))]
        responses = Player(engine).run(*requests)
        kept = (len(PROMPTS[0]) + WHOLE) // BLOCK - 1
        eventually(lambda: len(pool.names()) >= kept * len(PROMPTS))
        assert engine.metrics()["context_unsaved_blocks"] == 0
        return responses
    finally:
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def player(folder: Path, pool: Pool, whole: list[Response]) -> Iterator[Player]:
    """Another engine, with drafts and the same pool."""
    engine_pool = EnginePool("mooncake", master=pool.master)
    with drafting_player(folder, pool=engine_pool, engine_args=model(folder, **ROOM).engine_args) as player:
        yield player


def go_on(player: Player, whole: list[Response], number: int, place: str, drafts: list[int] | None = None) -> int:
    """Continues a response after CHUNK tokens and asserts that it equals the unmoved one; returns the number of fetched
    tokens."""
    group, before = NAMES.new(), metric(player, "context_fetched")
    if drafts is not None:
        feed(player, tokens=[DraftTokens(group, 1, 0, pack_tokens(drafts))])
    [response] = player.run(request(number, whole[number].tokens[:CHUNK], WHOLE, place, group))
    assert response.finish is FinishReason.LENGTH
    assert response.tokens == whole[number].tokens[CHUNK:]
    assert response.logprobs == pytest.approx(whole[number].logprobs[CHUNK:], abs=1e-4)
    return metric(player, "context_fetched") - before


@pytest.mark.parametrize("drafts", ["none", "right", "wrong"])
def test_a_moved_response_equals_the_unmoved_one_with_a_fetched_context(
    player: Player, whole: list[Response], drafts: str
) -> None:
    number = ("none", "right", "wrong").index(drafts)
    right = whole[number].tokens
    drafted = {"none": None, "right": right, "wrong": [token ^ 1 for token in right]}[drafts]
    tokens = go_on(player, whole, number, f"0/v/{number}", drafted)
    assert len(PROMPTS[0]) + CHUNK - 2 * BLOCK <= tokens < len(PROMPTS[0]) + CHUNK


def test_a_corrupting_store_causes_a_prefill_and_loses_no_token(
    player: Player, pool: Pool, whole: list[Response]
) -> None:
    client = MooncakeBlocks(pool.master)._link.client()  # pyright: ignore[reportPrivateUsage]
    keys = [key for key in pool.names() if "0/v/3/" in key]
    assert keys
    for key in keys:
        value = bytearray(client.get(key))
        value[-1] ^= 1
        assert client.batch_remove([key], True) == [0]
        assert client.put(key, bytes(value)) == 0
    failed = metric(player, "context_failed_fetches")
    assert go_on(player, whole, 3, "0/v/3") == 0
    assert metric(player, "context_failed_fetches") == failed + 1


@pytest.mark.parametrize(
    ("program", "number", "end"),
    [
        ("mooncake_client", 4, signal.SIGSTOP),
        ("mooncake_master", 5, signal.SIGSTOP),
        ("mooncake_master", 5, signal.SIGKILL),
    ],
)
def test_a_hanging_or_dead_store_causes_a_prefill_and_loses_no_token(
    player: Player, pool: Pool, whole: list[Response], program: str, number: int, end: signal.Signals
) -> None:
    eventually(lambda: pool.is_up)
    time.sleep(1.0)  # until its parent process has noticed, which waits longer for a process that never answers
    before = pool.pid("mooncake_master")
    if end is signal.SIGSTOP:
        stop(pool.pid(program))
    else:
        os.kill(pool.pid(program), end)
    assert go_on(player, whole, number, f"0/v/{number}") == 0
    eventually(lambda: pool.is_up and pool.pid("mooncake_master") not in (0, before))


def test_a_recovered_pool_is_used_again(player: Player, pool: Pool, whole: list[Response]) -> None:
    def forget() -> None:
        asyncio.run(player.engine.load_weights(NewWeights(SALT)))

    def is_used() -> bool:
        place = f"0/v/{NAMES.new()}"
        forget()
        player.run(request(0, [], CHUNK, place))
        if not any(place in key for key in pool.names()):
            return False
        forget()
        return go_on(player, whole, 0, place) > 0

    eventually(is_used)


def test_other_weights_never_find_these_blocks(player: Player, pool: Pool, whole: list[Response]) -> None:
    """Runs last, because it replaces the engine's salt."""
    asyncio.run(player.engine.load_weights(NewWeights("job@v2#1")))
    assert go_on(player, whole, 0, "0/v/0") == 0
