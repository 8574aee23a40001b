"""Drafts over several processes: the core in a child process, the model on two ranks; raw log-probabilities."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from openseer_core.manifest.job import Parallelism, Sampling
from openseer_core.tokens import pack_tokens
from openseer_worker.engine import DraftNews, DraftTokens
from openseer_worker.vllm.environment import is_cpu_build
from tests.worker.drafting import NAMES, PROMPTS, ROOM, drafting_player, metric, of
from tests.worker.player import Player

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

RAW = Sampling(temperature=0, ignore_eos=True, logprobs="raw")


@pytest.fixture(scope="module")
def player(folder: Path) -> Iterator[Player]:
    with drafting_player(folder, Parallelism(tensor=2), RAW, engine_process="child") as player:
        yield player


def test_two_ranks_verify_the_drafts_of_the_first(player: Player) -> None:
    first = player.run(of(0, RAW))[0]
    assert len(first.tokens) == ROOM
    group = NAMES.new()
    news = DraftNews(
        tokens=[DraftTokens(group, 0, 0, pack_tokens(first.tokens))], importance={"nobody": 2.0}, released=["none"]
    )
    assert asyncio.run(player.engine.feed(news)) == [ROOM]
    accepted, steps = metric(player, "accepted_siblings"), int(player.engine.metrics()["steps"])
    again, goes_on = player.run(
        of(0, RAW, group=group, index=1), of(0, RAW, group=group, index=2, tokens=first.tokens[:50])
    )
    assert again.tokens == first.tokens
    assert again.logprobs == pytest.approx(first.logprobs, abs=1e-4)
    assert goes_on.tokens == first.tokens[50:]
    assert metric(player, "accepted_siblings") > accepted + ROOM / 2
    assert int(player.engine.metrics()["steps"]) - steps < ROOM / 2


def test_raw_logprobs_of_drafts_are_the_models_own(player: Player, folder: Path) -> None:
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    group = NAMES.new()
    hot = Sampling(temperature=0.4, top_k=5, ignore_eos=True, logprobs="raw")
    accepted = metric(player, "accepted_tokens")
    responses = player.run(*(of(0, hot, group=group, index=index) for index in range(8)))
    assert metric(player, "accepted_tokens") > accepted
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for response in responses:
        with torch.no_grad():
            logits = reference(torch.tensor([PROMPTS[0] + response.tokens])).logits[0, len(PROMPTS[0]) - 1 : -1]
        expected = logits.log_softmax(-1)[range(ROOM), response.tokens].tolist()
        assert response.logprobs == pytest.approx(expected, abs=2e-4)
