"""Drafts over several processes: the core in a child, the model on two ranks, the same tokens."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.worker.drafting import NAMES, ROOM, drafting_player, figure, of
from tests.worker.player import GREEDY, Player

from openseer_core.job import Parallelism
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftNews
from openseer_worker.vllm_environment import is_cpu_build

pytestmark = [
    pytest.mark.engine,
    # Of vLLM, torch and the compiled modules below them, at import.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


@pytest.fixture(scope="module")
def player(folder: Path) -> Iterator[Player]:
    with drafting_player(folder, Parallelism(tensor=2), engine_process="child") as player:
        yield player


def test_two_ranks_verify_the_drafts_of_the_first(player: Player) -> None:
    first = player.run(of(0, GREEDY))[0]
    assert len(first.tokens) == ROOM
    group = NAMES.new()
    news = DraftNews(rows=[(group, 0, 0, pack_tokens(first.tokens))], weights={"nobody": 2.0}, released=["none"])
    assert asyncio.run(player.engine.feed(news)) == [ROOM]
    accepted, steps = figure(player, "accepted_siblings"), int(player.engine.figures()["steps"])
    again, goes_on = player.run(
        of(0, GREEDY, group=group, index=1), of(0, GREEDY, group=group, index=2, tokens=first.tokens[:50])
    )
    assert again.tokens == first.tokens
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-4)
    assert goes_on.tokens == first.tokens[50:]
    assert figure(player, "accepted_siblings") > accepted + ROOM / 2
    assert int(player.engine.figures()["steps"]) - steps < ROOM / 2
