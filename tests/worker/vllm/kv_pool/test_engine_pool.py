"""Real engines with a KV pool: a response continued elsewhere with fetched KV equals the unmoved one."""

import asyncio
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.job import Parallelism
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftTokens, NewWeights
from openseer_worker.kv_pool import rates
from openseer_worker.kv_pool.places import EnginePool
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, drafting_player, feed, metric
from tests.worker.kv_pool.waiting import eventually
from tests.worker.player import CONTEXT, Player, Response, model
from tests.worker.vllm.kv_pool.hanging import hanging
from tests.worker.vllm.kv_pool.moving import BLOCK, CHUNK, PROMPTS, ROOM, WHOLE, plain_engine, request

pytestmark = [
    pytest.mark.engine,
    # Four engines, and vLLM's import on a busy machine.
    pytest.mark.timeout(600),
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


def blocks(pool: EnginePool, place: str) -> list[Path]:
    return sorted((pool.folder / place).glob("[!.]*"))


@pytest.fixture(scope="module", autouse=True)
def _always_fetched() -> Iterator[None]:
    """Always fetches, also if computing is faster, as often for so small a model."""
    before, rates.TRIAL_EVERY = rates.TRIAL_EVERY, 1
    yield
    rates.TRIAL_EVERY = before


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[Response]:
    """Unmoved responses of an engine without a pool."""
    engine = plain_engine(folder, None)
    try:
        return Player(engine).run(*(request(number, [], WHOLE, "") for number in range(len(PROMPTS))))
    finally:
        asyncio.run(engine.close())


@pytest.fixture(scope="module")
def pool(folder: Path, whole: list[Response], tmp_path_factory: pytest.TempPathFactory) -> EnginePool:
    """The pool with the first CHUNK tokens of each response, stored by an engine that has ended."""
    pool = EnginePool("shared-directory", tmp_path_factory.mktemp("pool") / "fleet")
    engine = plain_engine(folder, pool)
    try:
        requests = [request(number, [], CHUNK, f"0/v/{number}") for number in range(len(PROMPTS))]
        for response, unmoved in zip(Player(engine).run(*requests), whole, strict=True):
            assert response.tokens == unmoved.tokens[:CHUNK]
        full = (len(PROMPTS[0]) + CHUNK) // BLOCK - 1
        eventually(lambda: all(len(blocks(pool, f"0/v/{number}")) >= full for number in range(len(PROMPTS))))
        assert engine.metrics()["context_unsaved_blocks"] == 0
    finally:
        asyncio.run(engine.close())
    return pool


@pytest.fixture(scope="module")
def player(folder: Path, pool: EnginePool) -> Iterator[Player]:
    """Another engine, with drafts and the same pool."""
    with drafting_player(folder, pool=pool, engine_args=model(folder, **ROOM).engine_args) as player:
        yield player


def fetched(player: Player) -> int:
    return metric(player, "context_fetched")


def go_on(player: Player, whole: list[Response], number: int, place: str, drafts: list[int] | None = None) -> int:
    """Continues a response after CHUNK tokens and asserts that it equals the unmoved one; returns the number of fetched
    tokens."""
    group, before = NAMES.new(), fetched(player)
    if drafts is not None:
        feed(player, tokens=[DraftTokens(group, 1, 0, pack_tokens(drafts))])
    [response] = player.run(request(number, whole[number].tokens[:CHUNK], WHOLE, place, group))
    assert response.finish is FinishReason.LENGTH
    assert response.tokens == whole[number].tokens[CHUNK:]
    assert response.logprobs == pytest.approx(whole[number].logprobs[CHUNK:], abs=1e-4)
    return fetched(player) - before


def test_a_moved_response_equals_the_unmoved_one_with_a_fetched_context(player: Player, whole: list[Response]) -> None:
    tokens = go_on(player, whole, 0, "0/v/0")
    assert len(PROMPTS[0]) + CHUNK - 2 * BLOCK <= tokens < len(PROMPTS[0]) + CHUNK
    assert tokens % BLOCK == 0
    assert int(player.engine.metrics()["context_fetched_bytes"]) > 0


@pytest.mark.parametrize("wrong", [False, True])
def test_with_drafts_of_siblings_a_moved_response_is_the_same(
    player: Player, whole: list[Response], wrong: bool
) -> None:
    number = 1 + wrong
    right = whole[number].tokens
    drafts = [token ^ 1 for token in right] if wrong else right
    assert go_on(player, whole, number, f"0/v/{number}", drafts) > 0


def test_a_group_has_no_blocks_in_another_groups_folder(player: Player, whole: list[Response]) -> None:
    assert go_on(player, whole, 3, "0/v/other") == 0


@pytest.mark.parametrize(("number", "how"), [(4, "another byte"), (6, "another block")])
def test_a_corrupted_block_causes_a_prefill_and_loses_no_token(
    player: Player, pool: EnginePool, whole: list[Response], number: int, how: str
) -> None:
    place = f"0/v/{how}"
    shutil.copytree(pool.folder / f"0/v/{number}", pool.folder / place)
    failed = metric(player, "context_failed_fetches")
    files = blocks(pool, place)
    contents = [file.read_bytes() for file in files]
    wrong = contents[1:] + contents[:1]
    if how == "another byte":
        wrong = [data[:-1] + bytes([data[-1] ^ 1]) for data in contents]
    for file, data in zip(files, wrong, strict=True):
        file.write_bytes(data)
    assert go_on(player, whole, number, place) == 0
    assert metric(player, "context_failed_fetches") == failed + 1


@contextmanager
def hanging_copy(pool: EnginePool, place: str) -> Generator[None]:
    """A group with the sixth's blocks, whose reads hang."""
    shutil.copytree(pool.folder / "0/v/5", pool.folder / place)
    with hanging(pool.folder / place):
        yield


def test_a_hanging_pool_causes_a_wait_and_loses_no_token(
    player: Player, pool: EnginePool, whole: list[Response]
) -> None:
    with hanging_copy(pool, "0/v/hanging"):
        assert go_on(player, whole, 5, "0/v/hanging") == 0


def test_a_response_aborted_during_its_fetch_leaves_no_blocks(
    player: Player, pool: EnginePool, whole: list[Response]
) -> None:
    with hanging_copy(pool, "0/v/leaving"):
        leaving = request(5, whole[5].tokens[:CHUNK], WHOLE, "0/v/leaving")
        response = player.add(leaving)
        player.engine.abort(leaving.key)
        while response.finish is None:
            player.poll()
            time.sleep(0.005)
        assert response.finish is FinishReason.ABORTED
    [other] = player.run(request(5, [], WHOLE, ""))
    assert other.tokens == whole[5].tokens


def test_other_weights_never_find_these_blocks(player: Player, whole: list[Response]) -> None:
    """Runs last, because it replaces the engine's salt."""
    asyncio.run(player.engine.load_weights(NewWeights("job@v2#1")))
    assert go_on(player, whole, 0, "0/v/0") == 0


def test_blocks_have_the_number_of_tokens_that_these_tests_assume(folder: Path) -> None:
    from openseer_worker.vllm.arguments import engine_arguments  # noqa: PLC0415 - heavy

    arguments: Any = engine_arguments(model(folder), Parallelism(), "none", on_cpu=True)
    assert arguments.block_size == BLOCK
    assert len(PROMPTS[0]) + WHOLE < CONTEXT
    assert replace(request(0, [], 1, "x"), kv_place="").kv_place == ""
